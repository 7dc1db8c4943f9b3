//! The order of one heartbeat's system calls, as the kernel saw them: what a 204 rests on.

use crate::client::{beat, token};
use crate::process::{Launch, eventually};
use crate::trace::{self, Call, Trace};

const USER: i64 = 9;

/// Whether the log has the segments that it prepares ahead, and the last one's name is synced: then all is idle.
fn has_spares(launch: &Launch, calls: &[Call]) -> bool {
    let files = std::fs::read_dir(launch.log_directory()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let last = calls.iter().rposition(|call| call.text.contains("/log/zeroing-"));
    let is_synced = |last: usize| {
        let keeper = calls[last].thread;
        calls[last..].iter().any(|call| call.thread == keeper && call.is(&["fsync"]) && call.text.ends_with(" = 0"))
    };
    names.filter(|name| name.starts_with("spare-")).count() == 2 && last.is_some_and(is_synced)
}

fn is_of_the_log(call: &Call) -> bool {
    call.text.contains("/log/")
}

#[test]
fn a_204_is_sent_after_one_sync_after_the_write_after_the_request() {
    if !trace::is_possible("a_204_is_sent_after_one_sync_after_the_write_after_the_request") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::embedded(&directory.path().join("data"));
    let trace = Trace::to(directory.path().join("trace"));
    let traced = "trace=recvfrom,read,pwrite64,pwritev,write,fdatasync,fsync,sendto,writev";
    let server = launch.clone().under(&trace.words(&["-e", traced])).start();
    let bearer = token(&launch.directory, USER);
    let mut client = server.connect();
    assert_eq!(client.beat(&bearer, beat(1, 1)).status, 204);
    eventually("the keeper has made its spares", || has_spares(&launch, &trace.so_far()));
    assert_eq!(client.beat(&bearer, beat(1, 2)).status, 204);
    server.kill();

    let calls = trace.read();
    let request = calls.iter().rposition(|call| call.is(&["recvfrom", "read"]) && call.text.contains("\"POST /"));
    let request = request.expect("the request was read");
    let answer =
        calls.iter().rposition(|call| call.is(&["sendto", "write", "writev"]) && call.text.contains("\"HTTP/1.1 204"));
    let answer = answer.expect("the 204 was sent");
    assert!(request < answer, "the 204 came before its request: {calls:#?}");
    let heartbeat = &calls[request..=answer];
    for call in heartbeat {
        println!("{} {}", call.thread, call.text);
    }

    let (socket, _) = heartbeat[0].text.split_once(',').expect("a call has arguments");
    let is_of_the_request = |call: &&Call| call.text.starts_with(socket) && !call.text.contains(" = -1 ");
    let read = heartbeat.iter().rfind(is_of_the_request).expect("the request was read");
    let of_the_log: Vec<_> = heartbeat.iter().filter(|call| is_of_the_log(call)).collect();
    let [write, sync] = of_the_log[..] else { panic!("not one write and one sync of the log: {heartbeat:#?}") };
    assert!(write.is(&["pwrite64", "pwritev"]) && write.text.contains("\"FRAM"), "{write:?}");
    assert!(sync.is(&["fdatasync"]) && sync.text.ends_with(" = 0"), "{sync:?}");
    let syncs = heartbeat.iter().filter(|call| call.is(&["fdatasync", "fsync"])).count();
    assert_eq!(syncs, 1, "{heartbeat:#?}");
    let answer = &calls[answer];
    for (earlier, later) in [(read, write), (write, sync), (sync, answer)] {
        assert!(earlier.ended < later.begun, "not in this order: {earlier:?}, {later:?}");
    }
}
