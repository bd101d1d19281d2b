//! Scripts that mean harm: each harms its own call only.

use drover_functions::{FunctionError, Limits, Script};

use crate::call;

fn refused(script: &str) -> FunctionError {
    match call(script, "f", "{}") {
        Ok(out) => panic!("{script} answered {out:.100}"),
        Err(error) => error,
    }
}

#[test]
fn what_does_not_end_is_ended() {
    let time = FunctionError::Time { limit_ms: Limits::default().cpu_ms };
    for script in [
        "function f() { while (true) {} }",
        "function f() { for (;;) { try { while (true) {} } catch (e) {} finally { continue; } } }",
        "while (true) {}",
        "function f() { return /^(a+)+$/.test('a'.repeat(40) + 'b'); }",
        "function f() { return [].indexOf.call({length: 2 ** 53 - 1}, 1); }",
        "function f() { return {toJSON() { while (true) {} }}; }",
        "function f() { return new Proxy({}, {ownKeys() { for (;;) {} }}); }",
        "var n = 0; function f() { return {get a() { while (true) { n++; } }}; }",
    ] {
        assert_eq!(refused(script), time, "{script}");
    }
}

#[test]
fn recursion_ends_as_an_error_of_the_script() {
    for script in [
        "function f() { return f() + 1; }",
        "function f() { let a = []; for (let i = 0; i < 2e4; i++) { a = [a]; } return a; }",
        "function f() { const a = {}; a.a = a; return a; }",
        "function f() { return eval('('.repeat(1e5)); }",
        "var o = {}; o.toString = function () { return '' + o; }; function f() { return '' + o; }",
    ] {
        let error = refused(script);
        assert!(matches!(error, FunctionError::Thrown { .. } | FunctionError::Time { .. }), "{script}: {error}");
    }
}

#[test]
fn memory_is_bounded() {
    for script in [
        "function f() { return 'x'.repeat(1e9 / 2).length + 'y'.repeat(1e9 / 2).length; }",
        "function f() { const a = []; for (;;) { a.push('x'.repeat(1e5) + a.length); } }",
        "function f() { return new Uint8Array(1e9).length; }",
        "function f() { let s = 'x'; for (;;) { s += s + 'y'; s.charCodeAt(1); } }",
        "function f() { return new Array(1e7).fill('x').join('y').length; }",
        "const keep = []; for (;;) { keep.push(new Uint8Array(1e6)); } function f() {}",
    ] {
        let error = refused(script);
        let limited = matches!(error, FunctionError::Memory { .. } | FunctionError::Time { .. })
            || error.to_string().contains("invalid string length")
            || error.to_string().contains("out of memory");
        assert!(limited, "{script}: {error}");
    }
}

#[test]
fn nothing_is_left_behind_for_the_next_call() {
    let script = Script::new(
        "var calls = 0;
         function f(input) {
           calls++;
           const before = [calls, [].map.name, typeof Object.prototype.stain, JSON.stringify({a: 1})];
           Object.prototype.stain = 1;
           Array.prototype.map = function stained() { return 'stolen'; };
           JSON.stringify = () => 'forged';
           Object.defineProperty(Object.prototype, 'toJSON', {value() { return 'poisoned'; }});
           globalThis.f = () => 'replaced';
           return input.plain ? before.join() : before;
         }",
        Limits::default(),
    )
    .expect("runs");
    for _ in 0..3 {
        assert_eq!(script.call("f", r#"{"plain": true}"#), Ok(r#""1,map,undefined,{\"a\":1}""#.to_owned()));
        assert_eq!(script.call("f", "{}"), Ok(r#""poisoned""#.to_owned()));
    }
}

#[test]
fn there_is_nothing_to_reach_outside_with() {
    let script = "function f() { return ['require', 'process', 'std', 'os', 'fetch', 'XMLHttpRequest', 'print', 'load', \
                  'setTimeout', 'Deno', 'module', 'scriptArgs'].filter(function (name) { \
                  return typeof globalThis[name] !== 'undefined'; }); }";
    assert_eq!(call(script, "f", "{}"), Ok("[]".to_owned()));
    assert!(call("import('fs')", "f", "{}").is_err());
}
