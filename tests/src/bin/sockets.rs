//! Measures sockets on a running stack: `sockets [HOW_MANY]`, with `MEED_API_URL`, `KAFKA_BROKERS`
//! and, as there is more than one process of Meed, `MEED_API_PID`.

use tests::socket_bench::SocketBench;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

#[tokio::main]
async fn main() {
    boot::process::install_crypto();
    boot::descriptors::raise().expect("enough file descriptors");
    let sockets = std::env::args().nth(1).map(|count| count.parse());
    let bench = SocketBench {
        sockets: sockets.transpose().expect("a number").unwrap_or(10_000),
        api: variable("MEED_API_URL"),
        brokers: variable("KAFKA_BROKERS"),
        pid: variable("MEED_API_PID").parse().expect("a process"),
    };
    println!("{}", bench.run().await);
}
