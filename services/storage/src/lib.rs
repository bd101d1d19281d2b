//! Time series: points and messages of devices.
