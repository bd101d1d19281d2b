//! Functions that are left out: what they make, or how long they take, is bounded by nothing that they are given.

use datafusion::prelude::SessionContext;

/// Texts as long as one likes out of a short one, and a function that takes the product of two lengths without a pause.
const LEFT_OUT: [&str; 6] = ["repeat", "lpad", "rpad", "replace", "regexp_replace", "levenshtein"];

/// Takes them away.
pub fn leave_out(context: &SessionContext) {
    for name in LEFT_OUT {
        context.deregister_udf(name);
    }
}
