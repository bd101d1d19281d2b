//! What is told of a panic, where a piece of work has one and the others go on: a message in one rule, an action's attempt.

use std::any::Any;

/// The cause of what becomes of the work.
pub fn fault(panic: &(dyn Any + Send + 'static)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("fault of the platform: {}", text.unwrap_or("it says nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        let told = |panic: Box<dyn Any + Send>| fault(&*panic);
        assert_eq!(told(Box::new("a text")), "fault of the platform: a text");
        assert_eq!(told(Box::new("made at run time".to_owned())), "fault of the platform: made at run time");
        assert_eq!(told(Box::new(7)), "fault of the platform: it says nothing");
    }
}
