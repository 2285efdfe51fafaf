//! The wire, and the only place where bytes become domain values.
