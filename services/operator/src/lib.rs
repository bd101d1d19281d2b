//! CRD types of Device and Rule.
