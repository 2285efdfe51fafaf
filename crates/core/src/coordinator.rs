//! The global watermark from partition reports.
