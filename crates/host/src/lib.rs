//! Process shell: configuration layers, tracing, admin port, signals, drain, network.
