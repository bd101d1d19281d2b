//! REST and live streams over the services.
