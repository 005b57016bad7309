public import HostSystem

/// What the settings say about the delta: `delta:` of amorce.yaml, with every default filled in.
public struct DeltaSettings: Sendable, Equatable {
    /// What a boot does when the orchestrator cannot be reached.
    public enum WhenUnreachable: String, Sendable, CaseIterable {
        /// The release is what the backup holds; the front is degraded and says how old its data is.
        case serveBackup = "serve-backup"
        case fail
    }

    /// Any form that `RsyncSource` reads.
    public var from: String
    /// The user of the rsync daemon, or of ssh; one in `from` says the same.
    public var user: String?
    /// The rsync daemon's. ssh has keys.
    public var password: Secret?
    public var sshKey: String?
    public var knownHosts: String?
    /// A file that must lie in the source, with the app's name as its first line.
    public var marker: String
    public static let defaultMarker = ".amorce-site"
    /// rsync patterns of what is neither brought nor deleted.
    public var exclude: [String]
    public var whenUnreachable: WhenUnreachable
    /// Of what is in the release, from 0 to 1.
    public var refuseDeletingMoreThan: Double
    public var stallAfter: Duration
    public var connectTimeout: Duration

    public init(
        from: String, user: String? = nil, password: Secret? = nil, sshKey: String? = nil, knownHosts: String? = nil,
        marker: String = DeltaSettings.defaultMarker, exclude: [String] = [],
        whenUnreachable: WhenUnreachable = .serveBackup,
        refuseDeletingMoreThan: Double = 0.2, stallAfter: Duration = .seconds(60),
        connectTimeout: Duration = .seconds(10)
    ) {
        self.from = from
        self.user = user
        self.password = password
        self.sshKey = sshKey
        self.knownHosts = knownHosts
        self.marker = marker
        self.exclude = exclude
        self.whenUnreachable = whenUnreachable
        self.refuseDeletingMoreThan = refuseDeletingMoreThan
        self.stallAfter = stallAfter
        self.connectTimeout = connectTimeout
    }
}
