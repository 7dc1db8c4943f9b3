//! What is taken out, and the tests that must notice. A mutation names its place by its text, which must stand in the file
//! exactly once: whoever changes that text changes it here too, as a test of this crate demands.

use anyhow::{Result, ensure};

/// One check or defence, and what is left without it.
pub(super) struct Mutation {
    /// What is taken out.
    pub(super) what: &'static str,
    pub(super) file: &'static str,
    /// Texts of the file, and what stands there instead.
    edits: &'static [(&'static str, &'static str)],
    /// Of which one at least must fail.
    pub(super) tests: &'static [&'static str],
}

impl Mutation {
    /// The mutated file, and the line of the first change.
    pub(super) fn apply(&self, whole: &str) -> Result<(String, usize)> {
        let mut mutated = whole.to_owned();
        for (find, replace) in self.edits {
            let count = mutated.matches(find).count();
            ensure!(count == 1, "{}: `{find}` stands in {} {count} times", self.what, self.file);
            mutated = mutated.replacen(find, replace, 1);
        }
        let first = self.edits.first().and_then(|(find, _)| whole.find(find)).unwrap_or(0);
        Ok((mutated, whole[..first].lines().count() + usize::from(whole[..first].ends_with('\n'))))
    }
}

const AUTH: &str = "crates/playhead-server/src/auth.rs";
const BATCH: &str = "crates/playhead-server/src/wire/batch.rs";
const BEAT: &str = "crates/playhead-server/src/wire/beat.rs";
const CONNECTION: &str = "crates/playhead-server/src/connection.rs";
const COMMITTER: &str = "crates/playhead-engine/src/store/embedded/committer.rs";
const LOG: &str = "crates/playhead-engine/src/store/embedded/log.rs";
const PROGRESS: &str = "crates/playhead-server/src/progress.rs";
const QUERY: &str = "crates/playhead-server/src/wire/query.rs";
const RECOVERY: &str = "crates/playhead-engine/src/store/embedded/recovery.rs";
const RESUME: &str = "crates/playhead-server/src/resume.rs";
const THREADS: &str = "crates/playhead-engine/src/store/embedded/threads.rs";
const WORKER: &str = "crates/playhead-server/src/worker.rs";

/// Requests that are no good, then what two users and pages rest on, then faults.
pub(super) const MUTATIONS: &[Mutation] = &[
    Mutation {
        what: "one Host",
        file: WORKER,
        edits: &[("if !names_its_host(&request) {", "if !names_its_host(&request) && false {")],
        tests: &["bad_input::framing::framing_that_is_not_http_is_refused_and_closed"],
    },
    Mutation {
        what: "the bound of a head",
        file: CONNECTION,
        edits: &[("HEAD_BYTES_MAX: u32 = 16 * 1024;", "HEAD_BYTES_MAX: u32 = 64 * 1024;")],
        tests: &[
            "bad_input::framing::sizes_are_bounded",
            "http2::heads_bodies_and_streams_are_bounded_and_the_connection_goes_on",
        ],
    },
    Mutation {
        what: "the bound of a body as announced",
        file: PROGRESS,
        edits: &[("if body.size_hint().lower() > BYTES_MAX as u64 {", "if false {")],
        tests: &["bad_input::framing::sizes_are_bounded"],
    },
    Mutation {
        what: "the bound of a body as read",
        file: PROGRESS,
        edits: &[("if whole.len() + piece.len() > BYTES_MAX {", "if false {")],
        tests: &[
            "bad_input::framing::sizes_are_bounded",
            "batch::what_is_no_json_too_deep_or_too_long_is_refused_at_once",
        ],
    },
    Mutation {
        what: "an absolute deadline",
        file: CONNECTION,
        edits: &[(
            "            Phase::Idle => self.enter(Phase::Receiving, self.deadlines.request),\n            Phase::Answering |",
            "            Phase::Idle | Phase::Receiving => self.enter(Phase::Receiving, self.deadlines.request),\n            Phase::Answering |",
        )],
        tests: &["bad_input::slowness::a_slow_client_is_closed_in_time_however_it_trickles"],
    },
    Mutation {
        what: "a body's media type",
        file: PROGRESS,
        edits: &[("if is_json(media_type.as_bytes()) && ", "if (true || is_json(media_type.as_bytes())) && ")],
        tests: &["bad_input::bodies::only_plain_json_is_taken"],
    },
    Mutation {
        what: "no compressed body",
        file: PROGRESS,
        edits: &[(" && !headers.contains_key(CONTENT_ENCODING) {", " {")],
        tests: &["bad_input::bodies::only_plain_json_is_taken"],
    },
    Mutation {
        what: "UTF-8 in a heartbeat",
        file: BEAT,
        edits: &[(
            "let text = std::str::from_utf8(body).map_err(|_| Problem::MalformedJson)?;",
            "let text = &*String::from_utf8_lossy(body);",
        )],
        tests: &["bad_input::bodies::what_is_no_json_is_400"],
    },
    Mutation {
        what: "UTF-8 in a batch",
        file: BATCH,
        edits: &[(
            "let text = std::str::from_utf8(body).map_err(|_| Problem::MalformedJson)?;",
            "let text = &*String::from_utf8_lossy(body);",
        )],
        tests: &["batch::what_is_odd_in_fields_that_nobody_knows_is_ignored_unless_it_is_no_text"],
    },
    Mutation {
        what: "objects only, no lists",
        file: BEAT,
        edits: &[(
            "        deserializer.deserialize_map(Fields(PhantomData))",
            "        let _ = Fields::<T>(PhantomData);\n        T::deserialize(deserializer).map(Object)",
        )],
        tests: &["bad_input::bodies::what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault"],
    },
    Mutation {
        what: "a known field only once",
        file: BEAT,
        edits: &[(
            "        match serde_json::from_str(text) {",
            "        match serde_json::from_str::<serde_json::Value>(text).and_then(serde_json::from_value) {",
        )],
        tests: &["bad_input::bodies::what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault"],
    },
    Mutation {
        what: "the canonical spelling of an id",
        file: "crates/playhead-core/src/id.rs",
        edits: &[("    if !canonical {", "    if !canonical && false {")],
        tests: &[
            "bad_input::bodies::what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault",
            "bad_input::paths::other_paths_are_404_and_nothing_is_normalised",
            "tokens::a_user_claim_that_is_no_canonical_id_is_refused",
        ],
    },
    Mutation {
        what: "the range of an id",
        file: BEAT,
        edits: &[("i64::try_from(id).map(|id| Id(MovieId(id))).map_err(E::custom)", "Ok(Id(MovieId(id as i64)))")],
        tests: &["bad_input::bodies::what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault"],
    },
    Mutation {
        what: "the range of a position",
        file: "crates/playhead-core/src/position.rs",
        edits: &[("if !(0.0..=Self::MAX_SECONDS).contains(&seconds) {", "if seconds.is_nan() {")],
        tests: &["bad_input::bodies::what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault"],
    },
    Mutation {
        what: "no negative zero",
        file: "crates/playhead-core/src/position.rs",
        edits: &[("Ok(if seconds.is_normal() {", "Ok(if !seconds.is_nan() {")],
        tests: &["bad_input::bodies::what_is_odd_but_good_is_stored_as_what_it_means"],
    },
    Mutation {
        what: "the range of a duration",
        file: "crates/playhead-core/src/position.rs",
        edits: &[(
            "if seconds.is_normal() && seconds > 0.0 && seconds <= Self::MAX_SECONDS {",
            "if seconds.is_normal() {",
        )],
        tests: &["bad_input::bodies::what_is_no_heartbeat_is_422_with_a_pointer_for_each_fault"],
    },
    Mutation {
        what: "a batch's number of items",
        file: BATCH,
        edits: &[("if items.len() == ITEMS_MAX {", "if items.len() == 2 * ITEMS_MAX {")],
        tests: &["batch::five_hundred_items_are_taken_and_one_bad_one_among_them_stores_nothing"],
    },
    Mutation {
        what: "a batch is all or nothing",
        file: BATCH,
        edits: &[(
            "items.collect::<Result<_, _>>().map(|items| Self { items }).map_err(|_| explain(text))",
            "Ok(Self { items: items.filter_map(Result::ok).collect() })",
        )],
        tests: &["batch::five_hundred_items_are_taken_and_one_bad_one_among_them_stores_nothing"],
    },
    Mutation {
        what: "the oldest age of an item",
        file: PROGRESS,
        edits: &[("    items.retain(|item| item.age <= worker.max_item_age());\n", "")],
        tests: &["batch::an_item_older_than_max_item_age_is_counted_and_dropped"],
    },
    Mutation {
        what: "an item is as old as it says",
        file: PROGRESS,
        edits: &[(
            "Change::LatePut { movie, position, duration, age };",
            "{ let _ = age; Change::Put { movie, position, duration } };",
        )],
        tests: &["batch::items_are_ordered_by_when_they_happened_whatever_the_devices_clock_says"],
    },
    Mutation {
        what: "the range of limit",
        file: QUERY,
        edits: &[("(1..=LIMIT_MAX).contains(&limit) && ", "")],
        tests: &["bad_input::paths::bad_queries_are_400"],
    },
    Mutation {
        what: "a parameter only once",
        file: QUERY,
        edits: &[("            if is_duplicate {", "            if is_duplicate && false {")],
        tests: &["bad_input::paths::bad_queries_are_400"],
    },
    Mutation {
        what: "a hundred titles in a query",
        file: QUERY,
        edits: &[("if is_list_too || movies.len() > MOVIES_MAX {", "if is_list_too {")],
        tests: &["bad_input::paths::bad_queries_are_400"],
    },
    Mutation {
        what: "one Authorization header",
        file: AUTH,
        edits: &[(
            "let (Some(value), None) = (values.next(), values.next())",
            "let (Some(value), _) = (values.next(), 0)",
        )],
        tests: &["tokens::a_header_that_is_not_one_bearer_token_is_refused"],
    },
    Mutation {
        what: "the algorithm is the key's",
        file: AUTH,
        edits: &[(
            "        validation.leeway = LEEWAY_SECONDS;",
            "        validation.leeway = LEEWAY_SECONDS;\n        validation.algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];",
        )],
        tests: &["tokens::only_hs256_under_the_servers_own_secret_counts"],
    },
    Mutation {
        what: "no critical extension",
        file: AUTH,
        edits: &[("if header.crit.is_some() {", "if header.crit.is_some() && false {")],
        tests: &["tokens::only_hs256_under_the_servers_own_secret_counts"],
    },
    Mutation {
        what: "a token's expiry",
        file: AUTH,
        edits: &[(
            "validation.validate_nbf = true;",
            "validation.validate_nbf = true;\n        validation.validate_exp = false;",
        )],
        tests: &["tokens::times_that_do_not_hold_are_refused"],
    },
    Mutation {
        what: "a token's expiry, once remembered",
        file: AUTH,
        edits: &[("return (now_s < verified.expires_s).then_some(*verified);", "return Some(*verified);")],
        tests: &["tokens::a_token_that_was_taken_is_refused_once_it_has_expired"],
    },
    Mutation {
        what: "a token's beginning",
        file: AUTH,
        edits: &[("validation.validate_nbf = true;", "validation.validate_nbf = false;")],
        tests: &["tokens::times_that_do_not_hold_are_refused"],
    },
    Mutation {
        what: "a token's audience",
        file: AUTH,
        edits: &[("validation.validate_aud = claims.audience.is_some();", "validation.validate_aud = false;")],
        tests: &["tokens::issuer_and_audience_are_required_where_they_are_configured"],
    },
    Mutation {
        what: "a token must name its issuer",
        file: AUTH,
        edits: &[("            required.push(\"iss\");\n", "")],
        tests: &["tokens::issuer_and_audience_are_required_where_they_are_configured"],
    },
    Mutation {
        what: "a claim only once",
        file: AUTH,
        edits: &[("if claims.get(&name).is_some() {", "if claims.get(&name).is_some() && false {")],
        // The standard's own claims are seen to by the library too.
        tests: &["tokens::another_claim_may_hold_the_user_and_only_once"],
    },
    Mutation {
        what: "shedding before a token is looked at",
        file: PROGRESS,
        edits: &[(
            "    shed_if_full(worker.lane()).inspect_err(shed)?;\n",
            "    let _ = shed_if_full(worker.lane());\n",
        )],
        tests: &["bad_input::past_the_bound_of_writes_a_beat_is_shed_before_its_token_is_looked_at"],
    },
    Mutation {
        what: "the bound of writes under way",
        file: "crates/playhead-engine/src/lane.rs",
        edits: &[(
            "        if self.is_full() {\n            return Err(Refusal::Busy);",
            "        if false {\n            return Err(Refusal::Busy);",
        )],
        tests: &["bad_input::past_the_bound_of_writes_a_beat_is_shed_before_its_token_is_looked_at"],
    },
    Mutation {
        what: "the bound of batches under way",
        file: "crates/playhead-server/src/overload.rs",
        edits: &[("if taken.get() >= BATCHES_MAX {", "if false {")],
        tests: &["batch::past_the_bound_of_batches_one_is_shed_before_its_token_is_looked_at"],
    },
    Mutation {
        what: "a user's rate",
        file: WORKER,
        edits: &[("        self.throttles.requests.take(user, begun)?;", "        let _ = begun;")],
        tests: &["throttle::past_a_users_rate_each_route_is_429_and_others_are_served"],
    },
    Mutation {
        what: "marks of CORS on early refusals",
        file: WORKER,
        edits: &[(
            "    if let (Some(origins), Some(grant)) = (&worker.origins, grant) {",
            "    if let (Some(origins), Some(grant), true) = (&worker.origins, grant, response.status().as_u16() < 500) {",
        )],
        tests: &["cors::a_refusal_under_load_may_be_read_and_a_preflight_is_never_shed"],
    },
    Mutation {
        what: "two users are two",
        file: AUTH,
        edits: &[(
            "Some(Value::String(text)) => text.parse().ok(),",
            "Some(Value::String(text)) => text.parse().ok().map(|user: UserId| UserId((user.0 + 1) & !1)),",
        )],
        tests: &[
            "delete::over_any_sequence_of_calls_neither_of_two_users_sees_or_changes_the_others_rows",
            "bad_input::the_user_is_the_tokens_whatever_else_is_said",
        ],
    },
    Mutation {
        what: "newest wins",
        file: "crates/playhead-engine/src/store/embedded/memtable.rs",
        edits: &[(
            "            Ordering::Greater => self,\n            Ordering::Less => other,\n            Ordering::Equal if self",
            "            Ordering::Greater | Ordering::Less => other,\n            Ordering::Equal if self",
        )],
        tests: &["properties::any_interleaving_equals_the_model_on_the_disk_through_kills"],
    },
    Mutation {
        what: "a barrier in memory counts",
        file: "crates/playhead-engine/src/store/memory.rs",
        edits: &[(
            "                if barrier.is_none_or(|barrier| row.write_time > *barrier) {",
            "                if true || barrier.is_some() {",
        )],
        tests: &["properties::any_interleaving_equals_the_model_in_memory"],
    },
    Mutation {
        what: "a barrier in the base counts",
        file: "crates/playhead-engine/src/store/embedded/read.rs",
        edits: &[("barrier.is_none_or(|barrier| row.write_time > barrier) && ", "(true || barrier.is_some()) && ")],
        tests: &["delete::a_forgotten_title_is_gone_and_a_late_item_does_not_bring_it_back"],
    },
    Mutation {
        what: "a page goes on behind the last title",
        file: RESUME,
        edits: &[("Place::of(bookmark) > after))", "Place::of(bookmark) >= after))")],
        tests: &["paging::over_a_row_that_beats_keep_changing_no_title_is_repeated_and_the_end_comes"],
    },
    Mutation {
        what: "the last page says so",
        file: RESUME,
        edits: &[("let last = shown.next().and(page.last())", "let last = page.last()")],
        tests: &["paging::over_a_row_that_beats_keep_changing_no_title_is_repeated_and_the_end_comes"],
    },
    Mutation {
        what: "a cursor is its user's",
        file: RESUME,
        edits: &[("&[&place[..], &user.0.to_le_bytes(), ", "&[&place[..], &(user.0 * 0).to_le_bytes(), ")],
        tests: &["paging::a_cursor_of_another_user_or_state_or_one_that_was_cut_or_changed_is_400"],
    },
    Mutation {
        what: "a cursor is its state's",
        file: RESUME,
        edits: &[("&[filter as u8]]", "&[filter as u8 * 0]]")],
        tests: &["paging::a_cursor_of_another_user_or_state_or_one_that_was_cut_or_changed_is_400"],
    },
    Mutation {
        what: "the check of a cursor",
        file: RESUME,
        edits: &[(
            "if check != check_bytes(place, user, filter) {",
            "if check != check_bytes(place, user, filter) && check.is_empty() {",
        )],
        tests: &["paging::a_cursor_of_another_user_or_state_or_one_that_was_cut_or_changed_is_400"],
    },
    Mutation {
        what: "answers are what docs/API.md shows",
        file: "crates/playhead-server/src/problem.rs",
        edits: &[("    \"A valid token is needed\",", "    \"A token is needed\",")],
        tests: &["docs::every_example_of_the_page_gives_what_the_page_says"],
    },
    Mutation {
        what: "the stop on a failed sync",
        file: LOG,
        edits: &[(
            "            sync(&mut || disk.sync(&self.file))?;",
            "            let _ = sync(&mut || disk.sync(&self.file));",
        )],
        tests: &["disk_faults::a_failed_sync_ends_the_process_and_no_acknowledgement_follows"],
    },
    Mutation {
        what: "the stop on a failed write",
        file: LOG,
        edits: &[(
            "        disk.write_at(&self.file, &self.frame, self.offset)?;\n        if !cfg!",
            "        let _ = disk.write_at(&self.file, &self.frame, self.offset);\n        if !cfg!",
        )],
        tests: &["disk_faults::a_failed_write_ends_the_process_and_nothing_acknowledged_is_lost"],
    },
    Mutation {
        what: "the end after a failure of the log",
        file: COMMITTER,
        edits: &[(
            "                shared.fail(&format!(\"the log can't be written: {error}\"));",
            "                let _ = error;",
        )],
        tests: &["disk_faults::a_failed_sync_ends_the_process_and_no_acknowledgement_follows"],
    },
    Mutation {
        what: "the stop on a failed drain",
        file: THREADS,
        edits: &[("        Err(reason) => shared.fail(&reason),", "        Err(_) => {}")],
        tests: &["disk_faults::a_failed_write_ends_the_process_and_nothing_acknowledged_is_lost"],
    },
    Mutation {
        what: "a 204 waits for its sync",
        file: LOG,
        edits: &[("        if !cfg!(feature = \"fault-no-sync\") {", "        if cfg!(feature = \"fault-no-sync\") {")],
        tests: &["disk_faults::a_slow_disk_delays_every_204_and_sheds_and_loses_nothing"],
    },
    Mutation {
        what: "the reserve of a disk",
        file: THREADS,
        edits: &[("Ok(bytes) => *bytes >= disk_reserve_bytes,", "Ok(bytes) => *bytes >= disk_reserve_bytes || true,")],
        tests: &[
            "disk_faults::a_full_disk_refuses_writes_and_answers_reads_until_there_is_room_again",
            "disk_faults::a_disk_with_less_room_than_the_reserve_takes_no_write_and_answers_reads",
        ],
    },
    Mutation {
        what: "the checksum of a frame",
        file: LOG,
        edits: &[("    if !whole || (half(bytes, 4)", "    if !whole || (false && half(bytes, 4)")],
        tests: &[
            "data_dir::a_damaged_store_is_refused_and_left_as_it_is",
            "data_dir::a_damaged_log_is_refused_by_its_place_and_only_a_torn_tail_is_cut",
        ],
    },
    Mutation {
        what: "a hole in the log is a loss",
        file: RECOVERY,
        edits: &[("        if next > self.last_sequence + 1 {", "        if next > self.last_sequence + 1 && false {")],
        tests: &[
            "data_dir::a_damaged_store_is_refused_and_left_as_it_is",
            "data_dir::a_damaged_log_is_refused_by_its_place_and_only_a_torn_tail_is_cut",
        ],
    },
    Mutation {
        what: "descriptors that are the store's",
        file: "crates/playhead/src/config.rs",
        edits: &[(
            "flags.limits.max_connections.min(descriptors::left_for_connections())",
            "flags.limits.max_connections.max(descriptors::left_for_connections())",
        )],
        tests: &["descriptors::out_of_descriptors_the_store_goes_on_and_so_does_accepting"],
    },
    Mutation {
        what: "a watchdog that counts its own ticks",
        file: "crates/playhead-engine/src/store/embedded/watchdog.rs",
        edits: &[
            ("    let mut ticks = 0;\n", "    let mut ticks;\n    let mut since = std::time::Instant::now();\n"),
            (
                "        ticks = if is_stuck { ticks + 1 } else { 0 };",
                "        if !is_stuck {\n            since = std::time::Instant::now();\n        }\n        ticks = since.elapsed().as_secs() as u32;",
            ),
        ],
        tests: &["restart::a_pause_amid_a_sync_does_not_wake_the_watchdog"],
    },
    Mutation {
        what: "the drain's deadline",
        file: WORKER,
        edits: &[(
            "tokio::time::timeout(parts.drain_deadline, drained)",
            "tokio::time::timeout(Duration::MAX, drained)",
        )],
        tests: &["restart::stopped_again_and_again_under_load_with_stuck_clients_it_ends_in_time_and_loses_nothing"],
    },
    Mutation {
        what: "write times that only rise",
        file: "crates/playhead-engine/src/store/stamp.rs",
        edits: &[("self.last.map_or(now, |last| now.max(last.next()))", "self.last.map_or(now, |_| now)")],
        tests: &[
            "restart::a_clock_that_has_jumped_back_leaves_the_newest_write_the_newest",
            "restart::a_clock_that_jumps_forth_and_back_refuses_no_write_and_keeps_their_order",
        ],
    },
];
