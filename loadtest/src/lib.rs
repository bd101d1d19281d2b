//! Load generator and ledger.
