/// Every path of the host, below one root, so that a test or a demonstration gives another root and nothing else changes.
public struct HostLayout: Sendable, Equatable {
    /// Without a trailing slash: "" for the real host.
    public let root: String

    public init(root: String = "/") {
        var trimmed = root
        while trimmed.hasSuffix("/") { trimmed.removeLast() }
        self.root = trimmed
    }

    public var isRealHost: Bool { root.isEmpty }

    /// An absolute path of the host as this process reaches it.
    public func path(_ absolute: String) -> String { root + absolute }

    public var settingsFile: String { path("/etc/amorce/amorce.yaml") }
    public var settingsFolder: String { path("/etc/amorce/conf.d") }
    /// The templates of this site; they win over the shipped ones.
    public var templates: String { path("/etc/amorce/templates") }
    /// Shipped template sets, one folder each.
    public var shippedTemplates: String { path("/usr/share/amorce/templates") }
    /// 0700: journal, release records, reports.
    public var state: String { path("/var/lib/amorce") }
    public var runtime: String { path("/run/amorce") }
    public var lockFile: String { path("/run/amorce/lock") }
    public var statusFile: String { path("/run/amorce/status.json") }
    public var healthFile: String { path("/run/amorce/ready") }
    public var logFile: String { path("/var/log/amorce.log") }
    public var bootIdentifier: String { "/proc/sys/kernel/random/boot_id" }
    public var seedFolders: [String] {
        [path("/var/lib/cloud/seed/nocloud"), path("/var/lib/cloud/seed/nocloud-net")]
    }

    /// `/var/www/APP`, with `releases/ID`, `current` and `shared` in it as Capistrano lays them out.
    public func site(_ app: String) -> String { path("/var/www/" + app) }
    public func releases(_ app: String) -> String { site(app) + "/releases" }
    public func release(_ app: String, _ identifier: String) -> String { releases(app) + "/" + identifier }
    public func current(_ app: String) -> String { site(app) + "/current" }
    public func shared(_ app: String) -> String { site(app) + "/shared" }
}
