//! The Java client, by the console tools of Kafka's own jars (`crates/backends/scripts/kafka.sh`).

use drover_backends::kafka::{NOT_RUN, SCRIPT};

use crate::broker::Broker;
use crate::console::{owned, run};

/// Runs a tool; its standard output, or `None` where there is no Java or Maven.
pub async fn tool(broker: &Broker, class: &str, arguments: &[&str], input: &str) -> Option<String> {
    let address = broker.address.to_string();
    let arguments = [&[class, "--bootstrap-server", address.as_str()], arguments].concat();
    let output = run(SCRIPT, owned(&arguments), input.to_owned()).await;
    let text = String::from_utf8(output.stdout).expect("text");
    if output.status.code() == Some(NOT_RUN) {
        println!("{}", text.trim_end());
        return None;
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}{errors}");
    Some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_console_tools_write_read_in_a_group_and_describe_it() {
    let broker = Broker::start().await;
    let topics = "org.apache.kafka.tools.TopicCommand";
    let create = ["--create", "--topic", "java", "--partitions", "3", "--config", "retention.ms=60000"];
    let Some(_) = tool(&broker, topics, &create, "").await else { return };
    let listed = tool(&broker, topics, &["--list"], "").await.expect("it ran");
    assert_eq!(listed, "java\n");

    let lines: Vec<String> = (0..300).map(|n| format!("line {n}")).collect();
    let input: String = lines.iter().enumerate().map(|(n, line)| format!("k{n}:{line}\n")).collect();
    let keyed = ["--topic", "java", "--property", "parse.key=true", "--property", "key.separator=:"];
    let producer = "org.apache.kafka.tools.ConsoleProducer";
    tool(&broker, producer, &[&keyed[..], &["--compression-codec", "zstd"]].concat(), &input).await.expect("it ran");

    let consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let reading =
        ["--topic", "java", "--group", "readers", "--from-beginning", "--max-messages", "300", "--timeout-ms", "60000"];
    let committed = [&reading[..], &["--isolation-level", "read_committed"]].concat();
    let read = tool(&broker, consumer, &committed, "").await.expect("it ran");
    let mut read: Vec<&str> = read.lines().collect();
    let mut expected: Vec<&str> = lines.iter().map(String::as_str).collect();
    read.sort_unstable();
    expected.sort_unstable();
    assert_eq!(read, expected);

    let groups = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    assert_eq!(tool(&broker, groups, &["--list"], "").await.expect("it ran"), "readers\n");
    let described = tool(&broker, groups, &["--describe", "--group", "readers"], "").await.expect("it ran");
    let rows: Vec<Vec<&str>> = described.lines().map(|line| line.split_whitespace().collect()).collect();
    let lags: Vec<&str> = rows.iter().filter(|row| row.first() == Some(&"readers")).map(|row| row[5]).collect();
    assert_eq!(lags, ["0", "0", "0"], "{described}");

    let ends = tool(&broker, "org.apache.kafka.tools.GetOffsetShell", &["--topic", "java"], "").await.expect("it ran");
    let total: u32 =
        ends.lines().map(|line| line.rsplit(':').next().expect("a field").parse::<u32>().expect("a number")).sum();
    assert_eq!(total, 300, "{ends}");
}
