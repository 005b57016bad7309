internal import HostSystem

/// One file or symlink of the host's configuration as a release brings it.
public struct ConfigurationEntry: Sendable, Codable, Equatable {
    public enum Kind: String, Sendable, Codable {
        case file, symlink
    }

    /// Absolute, as the host names it (without `--root`).
    public let path: String
    public let kind: Kind
    public let mode: UInt32
    public let owner: UInt32
    public let group: UInt32
    /// Of a file: SHA-256 of its bytes, which is also the name of its copy in the record's folder.
    public let digest: String
    /// Of a symlink.
    public let target: String
    /// Of a file: where secrets stand in it, so that a diff can hide them.
    public let secretRanges: [Range<Int>]

    public init(
        path: String, mode: UInt32, owner: UInt32, group: UInt32, digest: String, secretRanges: [Range<Int>] = []
    ) {
        self.path = path
        kind = .file
        self.mode = mode
        self.owner = owner
        self.group = group
        self.digest = digest
        target = ""
        self.secretRanges = secretRanges
    }

    public init(path: String, target: String) {
        self.path = path
        kind = .symlink
        mode = 0o777
        owner = 0
        group = 0
        digest = ""
        self.target = target
        secretRanges = []
    }
}

extension ConfigurationEntry {
    /// Makes it at `place`, whole, with its mode and, where this process may give files away, its owner. What an earlier run
    /// left under that name is replaced; nobody reads it before it is renamed.
    func prepare(_ bytes: [UInt8], at place: String) throws(HostError) {
        switch kind {
        case .symlink:
            try Files.remove(place)
            try Files.symlink(target: target, at: place)
        case .file:
            try AtomicFile.prepare(
                bytes, at: place, mode: mode, owner: Host.isSuperuser ? owner : nil,
                group: Host.isSuperuser ? group : nil)
        }
    }
}

/// What a release is made of, exactly: enough to roll back to it, and to say afterwards what was served. Holds no secret; the
/// configuration's bytes lie beside it, readable by root alone.
public struct ReleaseRecord: Sendable, Codable, Equatable {
    public struct Backup: Sendable, Codable, Equatable {
        public let location: String
        public let key: String
        public let etag: String?
        public let version: String?
        public let sha256: String
        /// When the backup was made, seconds since 1970.
        public let time: Int64?
        public let files: Int
        public let bytes: Int64

        public init(
            location: String, key: String, etag: String?, version: String?, sha256: String, time: Int64?, files: Int,
            bytes: Int64
        ) {
            self.location = location
            self.key = key
            self.etag = etag
            self.version = version
            self.sha256 = sha256
            self.time = time
            self.files = files
            self.bytes = bytes
        }
    }

    public struct Delta: Sendable, Codable, Equatable {
        public let source: String
        public let time: Int64
        public let created: Int
        public let changed: Int
        public let deleted: Int

        public init(source: String, time: Int64, created: Int, changed: Int, deleted: Int) {
            self.source = source
            self.time = time
            self.created = created
            self.changed = changed
            self.deleted = deleted
        }
    }

    /// What became of it, in order. Only a `proved` release can be rolled back to.
    public enum State: String, Sendable, Codable {
        /// Its files are whole and on disk, its configuration is rendered; it has not been live.
        case complete
        /// It was live and proved.
        case proved
        /// It was live, the proof failed, and the release before it was put back.
        case rejected
    }

    public var format = 1
    public let identifier: String
    public let app: String
    public let environment: String
    public let created: Int64
    /// What the served site must answer to prove that it is this release. Not a secret: it is served on loopback.
    public let token: String
    /// The release that this one was cloned from.
    public let base: String?
    public var backup: Backup?
    public var delta: Delta?
    /// When the data was current, seconds since 1970.
    public var dataTime: Int64?
    /// Why the data is older than it should be, where it is.
    public var degraded: String?
    public var configuration: [ConfigurationEntry] = []
    /// Rendered files inside the release.
    public var rendered: [ConfigurationEntry] = []
    public var state = State.complete
    /// The release that was live when this one became it: where a rollback without a name leads.
    public var previous: String?
    /// The instance that made it: what an image brought along is not this front's own.
    public var instance: String?

    public init(
        identifier: String, app: String, environment: String, created: Int64, token: String, base: String?
    ) {
        self.identifier = identifier
        self.app = app
        self.environment = environment
        self.created = created
        self.token = token
        self.base = base
    }
}
