//! Computes the global watermark and assigns shards.
