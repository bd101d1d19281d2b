//! One call in one engine: made for it, limited, and gone with it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cpu_time::ThreadTime;
use drover_types::limits::ROUTINE_BYTES_MAX;
use rquickjs::context::EvalOptions;
use rquickjs::function::Args;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Function, Runtime, Value};

use crate::error::FunctionError;

/// Longest message that a script's error tells, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// Scripts may print; nobody reads it. An ordinary property, so that a script may declare a `console` of its own.
const PRELUDE: &str = "globalThis.console = ['log', 'info', 'warn', 'error', 'debug', 'trace', 'dir', 'table', 'assert', \
    'group', 'groupEnd', 'time', 'timeEnd'].reduce(function (all, name) { all[name] = function () {}; return all; }, {});";

/// What one call may take. Loading the script and calling it have `cpu_ms` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: usize,
    /// Processor time of the calling thread, in milliseconds: waiting for others does not count.
    pub cpu_ms: u64,
    /// Of the engine on the calling thread's stack, which has to have more.
    pub stack_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 16 * 1024 * 1024, cpu_ms: 50, stack_bytes: 512 * 1024 }
    }
}

/// Runs a script to its end.
pub(crate) fn load(script: &str, limits: Limits) -> Result<(), FunctionError> {
    Engine::start(limits)?.with(script, |_, _| Ok(()))
}

/// Runs a script and calls one of its routines with these arguments, each a JSON text.
pub(crate) fn call(script: &str, limits: Limits, routine: &str, inputs: &[&str]) -> Result<String, FunctionError> {
    if !is_name(routine) {
        return Err(FunctionError::NoRoutine { routine: routine.chars().take(ROUTINE_BYTES_MAX).collect() });
    }
    let engine = Engine::start(limits)?;
    engine.with(script, |engine, ctx| {
        let function = engine.routine(ctx, routine)?;
        let arguments = engine.arguments(ctx, inputs)?;
        engine.watch.restart();
        let thrown = |caught: CaughtError<'_>| {
            let thrown = || FunctionError::Thrown { routine: routine.to_owned(), message: told(&caught) };
            engine.limit(&caught).unwrap_or_else(thrown)
        };
        let result: Value<'_> = function.call_arg(arguments).catch(ctx).map_err(thrown)?;
        let text = ctx.json_stringify(result).catch(ctx).map_err(thrown)?;
        let no_json = || FunctionError::NoJson { routine: routine.to_owned() };
        text.ok_or_else(no_json)?.to_string().map_err(|_| no_json())
    })
}

/// Whether a text is a name in JavaScript, of ASCII letters.
fn is_name(routine: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$');
    routine.len() <= ROUTINE_BYTES_MAX
        && routine.bytes().all(legal)
        && routine.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

struct Engine {
    context: Context,
    watch: Rc<Watch>,
    limits: Limits,
}

/// Ends what takes too long.
struct Watch {
    limit: Duration,
    started: Cell<ThreadTime>,
    expired: Cell<bool>,
}

impl Watch {
    fn restart(&self) {
        self.started.set(ThreadTime::now());
    }

    /// Whether the time is up; asked by the engine every few thousand steps.
    fn check(&self) -> bool {
        let expired = self.started.get().elapsed() > self.limit;
        self.expired.set(self.expired.get() || expired);
        expired
    }
}

impl Engine {
    fn start(limits: Limits) -> Result<Self, FunctionError> {
        let failed = |error: rquickjs::Error| FunctionError::Engine { message: error.to_string() };
        let runtime = Runtime::new().map_err(failed)?;
        runtime.set_memory_limit(limits.memory_bytes);
        runtime.set_max_stack_size(limits.stack_bytes);
        let watch = Rc::new(Watch {
            limit: Duration::from_millis(limits.cpu_ms),
            started: Cell::new(ThreadTime::now()),
            expired: Cell::new(false),
        });
        let asked = watch.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || asked.check())));
        let context = Context::full(&runtime).map_err(failed)?;
        Ok(Self { context, watch, limits })
    }

    /// Runs the script, and then `then` in its sight.
    fn with<T>(
        &self,
        script: &str,
        then: impl FnOnce(&Self, &Ctx<'_>) -> Result<T, FunctionError>,
    ) -> Result<T, FunctionError> {
        self.context.with(|ctx| {
            for text in [PRELUDE, script] {
                let ran = ctx.eval_with_options::<Value<'_>, _>(text, as_classic_script()).catch(&ctx);
                ran.map_err(|caught| {
                    self.limit(&caught).unwrap_or_else(|| FunctionError::Script { message: told(&caught) })
                })?;
            }
            then(self, &ctx)
        })
    }

    /// A function by its name: a global one, or one that `const` or `let` names.
    fn routine<'js>(&self, ctx: &Ctx<'js>, routine: &str) -> Result<Function<'js>, FunctionError> {
        let lookup = format!("typeof {routine} === 'function' ? {routine} : undefined");
        let found = ctx.eval_with_options::<Option<Function<'js>>, _>(lookup, as_classic_script()).catch(ctx);
        let missing = || FunctionError::NoRoutine { routine: routine.to_owned() };
        found.ok().flatten().ok_or_else(missing)
    }

    /// The values of JSON texts.
    fn arguments<'js>(&self, ctx: &Ctx<'js>, inputs: &[&str]) -> Result<Args<'js>, FunctionError> {
        let refused = |caught: CaughtError<'_>| match self.limit(&caught) {
            Some(limit) => limit,
            None => FunctionError::Input { message: told(&caught) },
        };
        let mut arguments = Args::new(ctx.clone(), inputs.len());
        for input in inputs {
            let value: Value<'js> = ctx.json_parse(*input).catch(ctx).map_err(refused)?;
            arguments.push_arg(value).catch(ctx).map_err(refused)?;
        }
        Ok(arguments)
    }

    /// The limit that an error comes from, if it is one's.
    fn limit(&self, caught: &CaughtError<'_>) -> Option<FunctionError> {
        let out_of_memory = match caught {
            CaughtError::Exception(exception) => exception.message().is_some_and(|m| m == "out of memory"),
            CaughtError::Error(rquickjs::Error::Allocation) => true,
            // What is thrown when there is no memory left for an error is null.
            CaughtError::Value(value) => value.is_null(),
            CaughtError::Error(_) => false,
        };
        if self.watch.expired.get() {
            return Some(FunctionError::Time { limit_ms: self.limits.cpu_ms });
        }
        out_of_memory.then_some(FunctionError::Memory { limit: self.limits.memory_bytes })
    }
}

/// Not a module and not strict: codecs assign to names they never declared.
fn as_classic_script() -> EvalOptions {
    let mut options = EvalOptions::default();
    options.strict = false;
    options.global = true;
    options
}

/// What was thrown, in one line.
fn told(caught: &CaughtError<'_>) -> String {
    let message = match caught {
        CaughtError::Exception(exception) => {
            let name = exception.as_object().get::<_, String>("name").unwrap_or_else(|_| "Error".to_owned());
            let place = exception.stack().and_then(|stack| stack.lines().next().map(|line| line.trim().to_owned()));
            let place = place.filter(|place| !place.is_empty()).map(|place| format!(" ({place})"));
            format!("{name}: {}{}", exception.message().unwrap_or_default(), place.unwrap_or_default())
        }
        CaughtError::Value(value) => match value.as_string().and_then(|text| text.to_string().ok()) {
            Some(text) => text,
            None => format!("a value of type {}", value.type_name()),
        },
        CaughtError::Error(error) => error.to_string(),
    };
    message.chars().take(MESSAGE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
