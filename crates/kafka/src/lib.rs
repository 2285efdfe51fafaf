//! The log: poll thread to bounded events, transactional sink, admin.
