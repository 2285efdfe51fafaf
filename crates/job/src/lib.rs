//! The job file: YAML in, checked values out.
