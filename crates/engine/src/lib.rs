//! The engine thread: inbox, scheduler, executor, outbox, life-cycle.
