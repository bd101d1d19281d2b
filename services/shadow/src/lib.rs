//! Shadows: the last and the wanted state of each device.
