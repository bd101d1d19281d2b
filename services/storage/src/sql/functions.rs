//! Functions that are left out: what they make, or how long they take, is bounded by nothing that they are given.

use datafusion::prelude::SessionContext;

/// Long texts and values of short ones, and a function that takes the product of two lengths without a pause.
const FUNCTIONS: [&str; 14] = [
    "repeat",
    "lpad",
    "rpad",
    "replace",
    "regexp_replace",
    "overlay",
    "concat",
    "concat_ws",
    "struct",
    "named_struct",
    "arrow_cast",
    "encode",
    "decode",
    "levenshtein",
];
/// Lists of all there is, and memory as large as an argument says.
const AGGREGATES: [&str; 3] = ["array_agg", "approx_percentile_cont", "approx_percentile_cont_with_weight"];
/// Rows without end out of nothing.
const TABLES: [&str; 2] = ["generate_series", "range"];

/// Whether a plan may not have it, whether it was called by its name or by a syntax of its own.
pub fn is_left_out(name: &str) -> bool {
    FUNCTIONS.contains(&name) || AGGREGATES.contains(&name)
}

/// Takes away those that are tables.
pub fn leave_out(context: &SessionContext) {
    TABLES.iter().for_each(|name| context.deregister_udtf(name));
}
