//! Figures as they are printed, and those of ours that are over a ceiling of the project.

/// What a figure may be at most, and what it should be.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub ceiling: f64,
    pub goal: f64,
}

/// Figures of one server.
pub struct Figures<'a> {
    name: &'a str,
    /// Whether it is ours, as it is shipped and alone: others are printed only.
    judged: bool,
    over: Vec<String>,
}

impl<'a> Figures<'a> {
    pub fn new(name: &'a str, judged: bool) -> Self {
        Self { name, judged, over: Vec::new() }
    }

    /// A figure without bounds.
    pub fn tell(&self, what: &str, figure: &str) {
        println!("{:10} {what:22} {figure}", self.name);
    }

    /// A figure of which less is better, and what else there is to say.
    pub fn judge(&mut self, what: &str, value: f64, unit: &str, bounds: Bounds, besides: &str) {
        let Bounds { ceiling, goal } = bounds;
        let verdict = match (self.judged, value) {
            (false, _) => String::new(),
            (true, value) if value > ceiling => {
                self.over.push(format!("{what} is {value:.2} {unit}, ceiling is {ceiling}"));
                " OVER THE CEILING".to_owned()
            }
            (true, value) if value > goal => format!(", {:.2} times the goal", value / goal),
            (true, _) => ", the goal is met".to_owned(),
        };
        let besides = if besides.is_empty() { String::new() } else { format!("; {besides}") };
        self.tell(what, &format!("{value:7.2} {unit} (ceiling {ceiling}, goal {goal}){verdict}{besides}"));
    }

    /// Something that has to be so.
    pub fn demand(&mut self, holds: bool, what: &str) {
        if self.judged && !holds {
            self.over.push(what.to_owned());
        }
    }

    /// What is not as it has to be.
    pub fn over(self) -> Vec<String> {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_can_be_over_a_ceiling() {
        let bounds = Bounds { ceiling: 2.0, goal: 1.0 };
        for (judged, value, passes) in [(true, 2.0, true), (true, 2.1, false), (false, 2.1, true)] {
            let mut figures = Figures::new("server", judged);
            figures.judge("cost", value, "µs", bounds, "");
            assert_eq!(figures.over().is_empty(), passes, "{judged} {value}");
        }
        let mut figures = Figures::new("server", true);
        figures.demand(false, "messages are missing");
        assert_eq!(figures.over(), ["messages are missing"]);
    }
}
