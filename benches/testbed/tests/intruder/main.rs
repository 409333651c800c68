//! Two gateways against whoever means no good: each case is refused with a reason in the log and a counter in `gateway.info`, and
//! the sessions of others go on.
//!
//! | Module | Who |
//! |---|---|
//! | `flood` | strangers by the thousand |
//! | `strangers` | whoever reaches the port: other protocols, versions, silence, garbage |
//! | `papers` | gateways whose certificates are not in order, or that may less than they try |
//! | `forged` | a program with certificates of its choice, and TLS of its choice |
//! | `peer` | a peer site that was paired and means no good: bombs, floods, addresses |
//! | `replay` | who listens on the path and says again what was said |

mod flood;
mod forged;
mod papers;
mod peer;
mod replay;
mod strangers;
mod tls;
mod wire;
