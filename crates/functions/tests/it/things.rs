//! Codecs of The Things Network, in the shapes that device makers write them in.

use std::fs;

use drover_functions::FunctionError;
use drover_functions::line::Lines;
use serde_json::{Value, json};

use crate::call;

const CODEC: &str = r#"
// Written as codecs are: sloppy, with var, and with a name that nobody declared.
function Decoder(bytes, port) {
  decoded = {};
  decoded.temperature = (((bytes[0] << 24) >> 16) | bytes[1]) / 100;
  decoded.battery = bytes[2] / 10;
  return decoded;
}
function decodeUplink(input) {
  console.log("port", input.fPort);
  if (input.fPort !== 2) { return {errors: ["unknown FPort"]}; }
  return {data: Decoder(input.bytes, input.fPort), warnings: []};
}
const encodeDownlink = (input) => ({bytes: [input.data.led === 'on' ? 1 : 0], fPort: 10});
let decodeDownlink = function ({bytes, fPort}) { return {data: {led: ['off', 'on'][bytes[0]], missing: undefined, none: NaN}}; };
"#;

#[test]
fn routines_run_as_they_are_written() {
    let uplink = |input: Value| call(CODEC, "decodeUplink", &input.to_string());
    let decoded = Ok(r#"{"data":{"temperature":-1.5,"battery":3.6},"warnings":[]}"#.to_owned());
    assert_eq!(uplink(json!({"bytes": [255, 106, 36], "fPort": 2})), decoded);
    assert_eq!(uplink(json!({"bytes": [], "fPort": 1})), Ok(r#"{"errors":["unknown FPort"]}"#.to_owned()));
    let encoded = call(CODEC, "encodeDownlink", r#"{"data": {"led": "on"}}"#);
    assert_eq!(encoded, Ok(r#"{"bytes":[1],"fPort":10}"#.to_owned()));
    // As JSON has it: undefined members vanish, NaN is null.
    let downlink = call(CODEC, "decodeDownlink", r#"{"bytes": [1], "fPort": 10}"#);
    assert_eq!(downlink, Ok(r#"{"data":{"led":"on","none":null}}"#.to_owned()));
}

#[test]
fn what_is_wrong_is_named() {
    let message = |outcome: Result<String, FunctionError>| outcome.expect_err("refused").to_string();
    let missing = message(call(CODEC, "normalizeUplink", "{}"));
    assert_eq!(missing, "script has no function normalizeUplink");
    assert_eq!(message(call("", "a b; x", "{}")), "script has no function a b; x");
    assert!(message(call("function (", "f", "{}")).starts_with("script: SyntaxError: "));
    let thrown = message(call("function f() { throw new Error('too short'); }", "f", "{}"));
    assert!(thrown.starts_with("f threw: Error: too short"), "{thrown}");
    assert_eq!(message(call("function f() { throw 'plain'; }", "f", "{}")), "f threw: plain");
    assert!(message(call("function f(i) { return i.a.b; }", "f", "{}")).starts_with("f threw: TypeError: "));
    assert!(message(call("function f() {}", "f", "{")).starts_with("input: SyntaxError: "));
    assert_eq!(message(call("function f() {}", "f", "{}")), "f returned what is no JSON");
}

#[test]
fn lines_are_answered_and_scripts_kept_until_their_file_changes() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("codec.js");
    fs::write(&path, CODEC).expect("written");
    let mut lines = Lines::default();
    let question = json!({"codec_path": path, "routine": "encodeDownlink", "input": {"data": {"led": "on"}}});
    for _ in 0..3 {
        assert_eq!(lines.answer(&question.to_string()), r#"{"out":{"bytes":[1],"fPort":10}}"#);
    }
    let error = |lines: &mut Lines, question: &str| {
        let answer: Value = serde_json::from_str(&lines.answer(question)).expect("JSON");
        answer["error"].as_str().expect("an error").to_owned()
    };
    assert!(error(&mut lines, "nonsense").starts_with("question: "));
    let nowhere = json!({"codec_path": "/nowhere.js", "routine": "f", "input": {}});
    assert!(error(&mut lines, &nowhere.to_string()).starts_with("/nowhere.js: "));
    fs::write(&path, "function (").expect("written");
    fs::File::options()
        .append(true)
        .open(&path)
        .expect("opens")
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .expect("set");
    assert!(error(&mut lines, &question.to_string()).contains("SyntaxError"));
}

#[test]
fn the_language_is_there_with_what_codecs_use_of_it() {
    let script = "class Reader { constructor(bytes) { this.view = new DataView(Uint8Array.from(bytes).buffer); } \
                  get float() { return this.view.getFloat32(0, true); } } \
                  function f({bytes, recvTime = null, ...rest}) { \
                  const {float} = new Reader(bytes); \
                  let hex = bytes.map((b) => b.toString(16).padStart(2, '0')).join('').toUpperCase(); \
                  return {float, hex, wide: String(BigInt('0x' + hex) << 8n), at: new Date(recvTime).toISOString(), \
                  day: new Date(0).getDay(), re: 'a1b22'.replace(/(?<n>\\d+)/g, '<$<n>>'), rest, opt: rest?.x?.y ?? 'none', \
                  sorted: [...new Set([3, 1, 3])].sort(), array: Array.isArray(bytes), buffer: typeof Buffer}; } \
                  let console = {log() {}}; console.log('one of its own');";
    let input = json!({"bytes": [0, 0, 32, 65], "recvTime": "2022-09-01T10:00:00.5Z", "fPort": 1});
    let expected = json!({"float": 10, "hex": "00002041", "wide": "2113792", "at": "2022-09-01T10:00:00.500Z", "day": 4,
        "re": "a<1>b<22>", "rest": {"fPort": 1}, "opt": "none", "sorted": [1, 3], "array": true, "buffer": "undefined"});
    assert_eq!(call(script, "f", &input.to_string()), Ok(expected.to_string()));
}
