//! Every key: its type, default, when a change takes effect, and what it is for. The only place where a key is named.

use std::net::IpAddr;
use std::path::PathBuf;

use super::setting::choice;
use super::setting::{Count, Name, ServerUrl, Setting, TcpEndpoint, Time};
use super::{CallerName, Key, TakesEffect, Values};

choice! {
    /// Least severe message that is logged.
    LogLevel {
        /// Failures.
        Error = "error",
        /// What somebody should look at.
        Warn = "warn",
        /// What happens.
        Info = "info",
        /// Why it happens.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
    }
}

choice! {
    /// How messages are written.
    LogFormat {
        /// A JSON object a line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

choice! {
    /// The kind of path between sites; nothing: as it is detected.
    ForcedMode {
        /// As detected.
        Detected = "",
        /// Short and fast.
        Datacenter = "datacenter",
        /// Long or slow.
        Internet = "internet",
        /// Between both.
        Hybrid = "hybrid",
    }
}

choice! {
    /// Whether RDMA is used.
    Rdma {
        /// Where there is a device.
        Auto = "auto",
        /// Yes.
        On = "true",
        /// No.
        Off = "false",
    }
}

choice! {
    /// Congestion control of streams.
    Congestion {
        /// As the path needs.
        Adaptive = "adaptive",
        /// By loss.
        Cubic = "cubic",
        /// By rate and round trip.
        Bbr = "bbr",
    }
}

choice! {
    /// Compression of page bodies, where a session's caller names none.
    Algorithm {
        /// Chosen batch by batch.
        Adaptive = "adaptive",
        /// zstd.
        Zstd = "zstd",
        /// lz4.
        Lz4 = "lz4",
        /// None.
        None = "none",
    }
}

choice! {
    /// How nodes agree.
    ConsensusProtocol {
        /// Crash faults.
        Raft = "raft",
        /// Byzantine faults.
        Pbft = "pbft",
        /// Membership only.
        Gossip = "gossip",
    }
}

choice! {
    /// Where sessions, audit and samples are kept.
    Backend {
        /// A file.
        Sqlite = "sqlite",
        /// A server, by URL.
        Postgres = "postgres",
        /// A server, by URL; a cache, not a database.
        Redis = "redis",
    }
}

choice! {
    /// How remote callers show who they are.
    AuthMethod {
        /// By a certificate of the site's authority for callers.
        Mtls = "mtls",
        /// By a token, over TLS.
        Token = "token",
        /// Not at all.
        None = "none",
    }
}

/// Declares the sections, their typed structs and the table of all keys from one list.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])*
        $path:literal $field:ident $name:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $type:ty = $default:literal, $effect:ident; )*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $name { $( $(#[doc = $doc])* pub $key: $type, )* }

            impl $name {
                fn read(values: &mut Values<'_>) -> Option<Self> {
                    // All of them are read before one is missed, so that every mistake is told.
                    $( let $key = values.take::<$type>(concat!($path, ".", stringify!($key))); )*
                    Some(Self { $( $key: $key?, )* })
                }
            }
        )*

        /// The configuration of a node, whole and checked.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Configuration { $( $(#[doc = $section_doc])* pub $field: $name, )* }

        impl Configuration {
            pub(super) fn read(values: &mut Values<'_>) -> Option<Self> {
                $( let $field = $name::read(values); )*
                Some(Self { $( $field: $field?, )* })
            }

            /// Every value under its key, in the order of [`KEYS`], as JSON writes it.
            pub fn values(&self) -> Vec<(&'static str, serde_json::Value)> {
                vec![$($( (concat!($path, ".", stringify!($key)), self.$field.$key.to_json()), )*)*]
            }
        }

        /// Every key.
        pub static KEYS: &[Key] = &[$($(
            Key {
                path: concat!($path, ".", stringify!($key)),
                about: concat!($($doc),*),
                default: $default,
                takes_effect: TakesEffect::$effect,
                expected: <$type as Setting>::expected,
                schema: <$type as Setting>::schema,
                is_list: <$type as Setting>::IS_LIST,
            },
        )*)*];

        /// Every section with what it holds.
        pub static SECTIONS: &[(&str, &str)] = &[$( ($path, concat!($($section_doc),*)), )*];
    };
}

sections! {
    /// The node and its process.
    "system" system System {
        /// The node's name in logs and answers; "": the host's name.
        node_id: Name = "", Restart;
        /// Where the node keeps what must outlive it.
        data_dir: PathBuf = "/var/lib/novacron", Restart;
        /// Least severe message that is logged.
        log_level: LogLevel = "info", AtOnce;
        /// How messages are written: a JSON object a line, or for people.
        log_format: LogFormat = "json", Restart;
        /// Calls that are carried out at once, of all callers; more wait.
        max_concurrency: Count<1, 100_000> = "1000", Restart;
        /// Address of the HTTP endpoints for health and metrics.
        health_check_address: IpAddr = "127.0.0.1", Restart;
        /// Port of /live, /ready and /health; 0: one that is free.
        health_check_port: Count<0, 65_535> = "8080", Restart;
        /// Time for components to stop in; then they are left.
        shutdown_timeout: Time<100, 3_600_000> = "30s", AtOnce;
        /// Unix socket that takes commands.
        control_socket: PathBuf = "/run/novacron/control.sock", Restart;
    }

    /// The dataplane: how sessions between gateways are made.
    "dwcp" dwcp Dataplane {
        /// Look again at what the host can do, every detection_interval.
        enable_auto_detection: bool = "true", AtOnce;
        /// The kind of path between sites; "": as detected.
        forced_mode: ForcedMode = "", AtOnce;
        /// Time between two looks.
        detection_interval: Time<1000, 86_400_000> = "30s", AtOnce;
        /// Share of new sessions that get what the switches below turn on, in percent.
        v3_rollout_percentage: Count<0, 100> = "100", AtOnce;
        /// At least dwcp.transport.min_streams streams a session; off: new sessions ask for one, and share those that older ones to the same peer hold.
        enable_v3_transport: bool = "true", AtOnce;
        /// Compression as dwcp.compression says; off: pages of new sessions travel as they are.
        enable_v3_compression: bool = "true", AtOnce;
        /// Predictions of bandwidth.
        enable_v3_prediction: bool = "false", NotBuilt;
        /// State that nodes share.
        enable_v3_state_sync: bool = "false", NotBuilt;
        /// Agreement among nodes.
        enable_v3_consensus: bool = "false", NotBuilt;
        /// Choice of a destination.
        enable_v3_placement: bool = "false", NotBuilt;
        /// The gateway's program: a path, or "" for novacron-gateway beside this program or on the path.
        gateway_program: Option<PathBuf> = "", Restart;
        /// The gateway's own control socket. A gateway that answers there is adopted.
        gateway_socket: PathBuf = "/run/novacron/gateway.sock", Restart;
        /// Threads of the gateway that move bytes.
        gateway_shards: Count<1, 256> = "1", Restart;
        /// UDP port of network.listen_address where peers' probes of the path are answered, and from where peers are probed; 0: neither.
        probe_port: Count<0, 65535> = "0", Restart;
    }

    /// Streams between gateways.
    "dwcp.transport" transport Transport {
        /// Streams of a session at least, where its caller names no number.
        min_streams: Count<1, 512> = "4", AtOnce;
        /// Most streams to a peer; there are as many as help.
        max_streams: Count<1, 512> = "256", Restart;
        /// How long a session outlives the loss of all its streams, where its caller says nothing.
        stream_timeout: Time<0, 86_400_000> = "60s", AtOnce;
        /// RDMA in place of TCP.
        enable_rdma: Rdma = "auto", NotBuilt;
        /// Congestion control; adaptive: as the gateway chooses.
        congestion_algo: Congestion = "adaptive", Restart;
    }

    /// Compression of guests' pages.
    "dwcp.compression" compression Compression {
        /// The algorithm, where a session's caller names none.
        algorithm: Algorithm = "adaptive", AtOnce;
        /// zstd's level, where a session's caller names none; 0 is zstd's own default.
        level: Count<0, 22> = "3", AtOnce;
        /// Whether gateways remember pages and send differences to earlier versions of them, where a session's caller does not say.
        enable_delta: bool = "true", AtOnce;
        /// A learned choice of the algorithm.
        enable_ml_model: bool = "false", NotBuilt;
    }

    /// How nodes agree.
    "dwcp.consensus" consensus Consensus {
        /// The protocol.
        protocol: ConsensusProtocol = "raft", NotBuilt;
        /// Time between two heartbeats of a leader.
        heartbeat_interval: Time<10, 60_000> = "500ms", NotBuilt;
        /// Time without a heartbeat after which another leader is elected.
        election_timeout: Time<50, 600_000> = "5s", NotBuilt;
        /// Faulty nodes that are withstood.
        byzantine_tolerance: Count<0, 100> = "1", NotBuilt;
    }

    /// What listens and whom it reaches.
    "network" network Network {
        /// Address at which peer gateways reach this one.
        listen_address: IpAddr = "127.0.0.1", Restart;
        /// Port at which peer gateways reach this one; 0: one that is free.
        bind_port: Count<0, 65_535> = "9090", Restart;
        /// Callers connected at once, on all control sockets.
        max_connections: Count<1, 100_000> = "10000", Restart;
        /// TLS on streams between gateways. Off only together with security.enable_encryption: whoever reaches the network reads guests' memory.
        enable_tls: bool = "true", Restart;
        /// Peer gateways that should answer; health tells which do not.
        peers: Vec<TcpEndpoint> = "", AtOnce;
        /// Where a remote fleet is answered, over TLS; "": nowhere.
        control_listen: Option<TcpEndpoint> = "", Restart;
    }

    /// What is remembered, and where.
    "storage" storage Storage {
        /// The database: sqlite, a file in system.data_dir, or postgres, a server.
        backend: Backend = "sqlite", Restart;
        /// The PostgreSQL server: postgres://USER@HOST/DATABASE, always over TLS, or a unix socket with ?host=/run/postgresql. No password in it.
        url: Option<ServerUrl> = "", Restart;
        /// File whose first line is the database's password; readable by its owner alone, as a systemd credential is.
        password_file: Option<PathBuf> = "", Restart;
        /// Connections to a PostgreSQL server at most.
        max_connections: Count<1, 100> = "100", Restart;
        /// Authorities that PostgreSQL's and Redis' certificates are judged by, PEM; "": the system's.
        authorities: Option<PathBuf> = "", Restart;
        /// Certificate that is shown to PostgreSQL and Redis, PEM.
        certificate: Option<PathBuf> = "", Restart;
        /// Its key, PEM.
        certificate_key: Option<PathBuf> = "", Restart;
        /// A cache before the database.
        enable_cache: bool = "true", Restart;
        /// The cache's Redis: rediss://HOST, or redis+unix:///PATH. No password in it. "": in this process.
        cache_url: Option<ServerUrl> = "", Restart;
        /// File whose first line is Redis' password; readable by its owner alone.
        cache_password_file: Option<PathBuf> = "", Restart;
    }

    /// What can be seen from outside.
    "monitoring" monitoring Monitoring {
        /// Metrics over HTTP.
        enable_metrics: bool = "true", Restart;
        /// Port of /metrics; 0: one that is free.
        metrics_port: Count<0, 65_535> = "9091", Restart;
        /// Traces of the start, of calls and of sessions, exported by OTLP.
        enable_tracing: bool = "false", Restart;
        /// The collector that takes them, by OTLP's protobuf over HTTP; https, unless it is on this host.
        otlp_endpoint: ServerUrl = "http://127.0.0.1:4318", Restart;
        /// Authorities that the collector's certificate is judged by, PEM; "": the system's.
        otlp_authorities: Option<PathBuf> = "", Restart;
    }

    /// Who may do what.
    "security" security Security {
        /// Callers have roles. Off: whoever reaches the unix socket may do everything, and no remote caller is answered.
        enable_auth: bool = "true", AtOnce;
        /// How remote callers show who they are.
        auth_method: AuthMethod = "mtls", Restart;
        /// Encryption between gateways; see network.enable_tls.
        enable_encryption: bool = "true", Restart;
        /// The node's identity folder, as novactl keys and novactl pair write it.
        identity_dir: PathBuf = "/etc/novacron/identity", Restart;
        /// The authorities that remote callers' certificates are judged by, and their revocation lists, PEM.
        caller_authorities: Option<PathBuf> = "", Restart;
        /// File of tokens: a name and the token's SHA-256 in hex a line. `novactl token` changes it, so it stands in a folder that this process may write, as system.data_dir.
        token_file: Option<PathBuf> = "", AtOnce;
        /// Callers who may do everything, beside the user that the process runs as.
        admins: Vec<CallerName> = "uid:0", AtOnce;
        /// Callers who may open, cancel and release sessions.
        operators: Vec<CallerName> = "", AtOnce;
        /// Callers who may look.
        viewers: Vec<CallerName> = "", AtOnce;
    }
}
