//! What the integration tests share: brokers, processes, reading topics back.
