//! The languages of `drover device snippet` as the command line and its help know them.

use anyhow::Context;
use clap::ValueEnum;
use clap::builder::PossibleValue;
pub use drover_snippets::Access;
use serde::Deserialize;
use serde_json::Value;

/// In which language a program is printed.
#[derive(Clone, Copy, Debug)]
pub struct Language(pub drover_snippets::Language);

impl ValueEnum for Language {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: [Language; drover_snippets::Language::ALL.len()] = {
            let mut all = [Language(drover_snippets::Language::Python); drover_snippets::Language::ALL.len()];
            let mut i = 0;
            while i < all.len() {
                all[i] = Language(drover_snippets::Language::ALL[i]);
                i += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(self.0.about()))
    }
}

/// How to connect, out of an answer of the gateway.
pub fn access(answer: &Value) -> anyhow::Result<Access> {
    Access::deserialize(answer).context("the answer does not say how to connect")
}
