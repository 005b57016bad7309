public import Backups
internal import CloudPlatform
public import HostSystem

/// What the orchestrator does with backups: makes, verifies, lists and prunes them. Outside of any front's run; it needs no
/// settings, and changes nothing but the store.
public struct BackupWork {
    public struct Request: Sendable {
        /// A folder, or `current` for the release that is live.
        public var source: String
        /// The application; nil: what the folder's `.amorce-site` says.
        public var app: String?
        public var environment: String
        public var patterns: [String] = []
        public var isFull = false

        public init(source: String, app: String?, environment: String) {
            self.source = source
            self.app = app
            self.environment = environment
        }
    }

    /// One backup as a list shows it.
    public struct Listed: Sendable, Encodable {
        public let key: String
        public let state: BackupInventory.Item.State
        /// Bytes.
        public let size: Int64?
        /// Seconds since 1970.
        public let time: Int64?
        public let app: String?
        public let environment: String?
        public let files: Int?
        public let bytes: Int64?
        /// How many of its bytes an earlier backup gave when it was made.
        public let copied: Int64?
        public let madeBy: String?
        /// Its time is a wrong clock's.
        public let isAhead: Bool
        /// What a person should know of it.
        public let note: String?

        init(_ item: BackupInventory.Item, now: Int64) {
            key = item.object.key
            state = item.state
            size = item.object.size
            time = item.time
            app = item.header?.app
            environment = item.header?.environment
            files = item.header?.files
            bytes = item.header?.bytes
            copied = item.header?.copied
            madeBy = item.header?.madeBy
            isAhead = item.state == .complete && item.time.map { BackupInventory.isAhead($0, of: now) } ?? false
            if case .damaged(let reason) = item.state {
                note = "\(reason); never removed by --prune"
            } else {
                note = isAhead ? "dated more than a day ahead: kept, and counts for no policy" : nil
            }
        }
    }

    public struct Pruned: Sendable, Encodable {
        public let kept: [Listed]
        public let removed: [Listed]
        public let isDryRun: Bool
    }

    public struct Verified: Sendable, Encodable {
        public let key: String
        public let sha256: String
        public let files: Int
        public let links: Int
        public let directories: Int
        /// Unpacked.
        public let bytes: Int64
        public let warnings: [String]
    }

    private let options: RunOptions
    private let transport: any HTTPTransport
    private let stop: StopFlag
    private let recorder: RunRecorder

    public init(
        _ command: String, options: RunOptions, transport: any HTTPTransport, stop: StopFlag,
        observer: @escaping @Sendable (RunEvent) -> Void
    ) {
        self.options = options
        self.transport = transport
        self.stop = stop
        let report = RunReport(
            version: options.version, command: command, run: "", process: Host.processIdentifier, bootIdentifier: "",
            started: Host.now)
        recorder = RunRecorder(report: report, layout: options.layout, keepsStatus: false, observer: observer)
    }

    /// Whether it is a name of an application or an environment, as the settings want it.
    public static func isName(_ text: String) -> Bool { Settings.isName(text) }

    // MARK: backup

    public func create(_ request: Request, to settings: BackupSettings) throws(BootFailure) -> CreateBackup.Result {
        let shown = HTTPRequest.withoutQuery(settings.from)
        return try recorder.step(
            .backup, "backing up \(Printable.text(request.source)) to \(shown)",
            summary: { (made: CreateBackup.Result) in
                "\(Files.name(of: made.key)): \(made.files) files, \(ByteCount(made.bytes)) in \(ByteCount(made.size)), "
                    + (made.copied > 0
                        ? "\(ByteCount(made.sent)) sent, \(ByteCount(made.copied)) kept from \(Files.name(of: made.copiedFrom ?? ""))"
                        : "all sent")
            }
        ) {
            let location = try prefix(settings)
            let store = try access(location, settings).writableStore(location, settings)
            let source = try source(request)
            try source.refuse(placeAt: location)
            var create = CreateBackup.Options(
                app: source.app, environment: request.environment, madeBy: "amorce " + options.version,
                threads: settings.threads, connections: settings.connections, now: Host.now)
            create.isFull = request.isFull
            create.isExcluded = source.isExcluded
            let made = try CreateBackup(store: store, log: recorder.log).create(
                from: source.tree, prefix: location.key, options: create, stop: stop,
                progress: recorder.progress(of: .backup))
            tell(made, isRelease: request.source == "current")
            return made
        }
    }

    /// What a person has to know of what is not in the backup, or not as it should be.
    private func tell(_ made: CreateBackup.Result, isRelease: Bool) {
        let log = recorder.log
        func some(_ names: [String], of count: Int) -> String {
            names.prefix(5).joined(separator: ", ") + (count > 5 ? " and \(count - 5) more" : "")
        }
        if made.special > 0 {
            log.warning("left out, no part of a site: \(some(made.specialNames, of: made.special))")
        }
        if !made.mountPoints.isEmpty {
            log.warning(
                "left out, on another file system: what is below \(some(made.mountPoints, of: made.mountPoints.count))")
        }
        if !made.leadingOut.isEmpty {
            // A release's shared paths are such links, each time.
            let words =
                "left out, symlinks that lead out of the folder: \(some(made.leadingOut, of: made.leadingOut.count))"
            if isRelease { log.detail(words) } else { log.warning(words) }
        }
        if !made.changed.isEmpty {
            log.warning(
                "changed each time while being read, and may be of two versions: \(some(made.changed, of: made.changed.count))"
            )
        }
        if made.vanished > 0 {
            log.notice("gone before they could be read: \(some(made.vanishedNames, of: made.vanished))")
        }
    }

    private struct Source {
        let tree: SourceTree
        let app: String
        let isExcluded: @Sendable ([UInt8], Bool) -> Bool

        /// Backups inside of what is backed up would hold each other, and grow with every one.
        func refuse(placeAt location: StoreLocation) throws {
            guard location.scheme == .file, let place = Files.resolved(location.root),
                (place + "/").hasPrefix(tree.path + "/")
            else { return }
            let parts = place.dropFirst(tree.path.count).split(separator: "/")
            let isLeftOut = parts.indices.contains { isExcluded(Array(parts[...$0].joined(separator: "/").utf8), true) }
            if !isLeftOut { throw PlaceInside(place: place, folder: parts.joined(separator: "/")) }
        }
    }

    struct PlaceInside: Error, CustomStringConvertible {
        let place: String
        /// Below what is backed up; empty: it is the same.
        let folder: String
        var description: String { "\(Printable.text(place)) lies in what is backed up" }
    }

    private func source(_ request: Request) throws -> Source {
        var path = request.source
        var app = request.app
        var left: Set<[UInt8]> = []
        if request.source == "current" {
            guard let live = try ReleaseStore.liveApp(layout: options.layout) else {
                throw NothingLive()
            }
            let store = ReleaseStore(layout: options.layout, app: live)
            app = app ?? live
            // What amorce renders holds this environment's secrets, and is made anew wherever the backup is restored. Without the
            // record it is not known which files these are.
            guard let identifier = try store.live(), let record = try store.record(identifier) else {
                throw NoRecord(app: live)
            }
            path = options.layout.release(live, identifier)
            for entry in record.rendered {
                left.insert(Array(entry.path.split(separator: "/").dropFirst(5).joined(separator: "/").utf8))
            }
        }
        guard let resolved = Files.resolved(path) else { throw HostError("open", path, errno: 2) }
        let name = try app ?? Self.marker(resolved + "/" + DeltaSettings.defaultMarker)
        let tree = try SourceTree(resolved)
        var patterns = ExclusionPatterns()
        if let lines = try FileReading.bytesIfPresent(resolved + "/" + CreateBackup.ignoreFile, limit: 1 << 20) {
            patterns = try ExclusionPatterns(lines: lines)
        }
        for pattern in request.patterns { try patterns.add(pattern) }
        let marker = Array(DeltaSettings.defaultMarker.utf8)
        return Source(tree: tree, app: name) { [patterns, left] path, isDirectory in
            path == marker || left.contains(path) || patterns.excludes(path, isDirectory: isDirectory)
        }
    }

    /// The orchestrator's folder says in its marker which application it holds.
    private static func marker(_ path: String) throws -> String {
        guard let bytes = try FileReading.bytesIfPresent(path, limit: 64 << 10) else { throw NoApp() }
        let line = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline).first ?? ""
        let name = line.filter { !$0.isWhitespace }
        guard Settings.isName(name) else { throw NoApp() }
        return name
    }

    struct NothingLive: Error, CustomStringConvertible {
        var description: String { "no release is live here" }
    }

    struct NoRecord: Error, CustomStringConvertible {
        let app: String
        var description: String { "there is no record of the release of \(app) that is live, and so of its secrets" }
    }

    struct NoApp: Error, CustomStringConvertible {
        var description: String { "the application is not named" }
    }

    // MARK: verify

    /// Reads the whole backup and writes nothing: the newest one of a prefix, or the one that is named.
    public func verify(_ settings: BackupSettings) throws(BootFailure) -> Verified {
        try recorder.step(
            .verify, "verifying \(HTTPRequest.withoutQuery(settings.from))",
            summary: { (verified: Verified) in
                "\(Files.name(of: verified.key)) is whole: \(verified.files) files, \(ByteCount(verified.bytes))"
            }
        ) {
            let location = try StoreLocation(parsing: settings.from)
            let store = try access(location, settings).store(location, settings)
            let object = try RestoreBackup(
                settings: settings, location: location, store: store, owner: nil, log: recorder.log
            ).pinned(stop: stop)
            let restore = RestoreArchive(store: store, log: recorder.log)
            var options = RestoreArchive.Options()
            options.memory = settings.memory
            options.threads = settings.threads
            options.expectedSHA256 = try restore.checksumBeside(object, stop: stop)
            let done = try restore.verify(
                object, options: options, stop: stop, progress: recorder.progress(of: .verify))
            for warning in done.warnings { recorder.log.warning("\(Files.name(of: object.key)): \(warning)") }
            return Verified(
                key: object.key, sha256: done.sha256, files: done.files, links: done.links,
                directories: done.directories, bytes: done.bytes, warnings: done.warnings)
        }
    }

    // MARK: backups

    public func list(_ settings: BackupSettings) throws(BootFailure) -> [Listed] {
        try BootFailure.inStep(.list, "listing \(HTTPRequest.withoutQuery(settings.from))") {
            let location = try prefix(settings)
            let store = try access(location, settings).store(location, settings)
            let now = Host.now
            return try BackupInventory(store: store).items(prefix: location.key, now: now, stop: stop)
                .map { Listed($0, now: now) }
        }
    }

    /// - Parameter policy: as `RetentionPolicy` reads it.
    public func prune(
        _ settings: BackupSettings, policy text: String, isDryRun: Bool
    ) throws(BootFailure) -> Pruned {
        try BootFailure.inStep(.prune, "pruning \(HTTPRequest.withoutQuery(settings.from))") {
            let policy = try RetentionPolicy(parsing: text)
            let location = try prefix(settings)
            let store = try access(location, settings).writableStore(location, settings)
            let now = Host.now
            let items = try BackupInventory(store: store).items(prefix: location.key, now: now, stop: stop)
            let plan = PruneBackups.plan(items, policy: policy, now: now)
            if !isDryRun { try PruneBackups(store: store).remove(plan, stop: stop) }
            return Pruned(
                kept: plan.kept.map { Listed($0, now: now) }, removed: plan.removed.map { Listed($0, now: now) },
                isDryRun: isDryRun)
        }
    }

    // MARK: stores

    private func prefix(_ settings: BackupSettings) throws -> StoreLocation {
        let location = try StoreLocation(parsing: settings.from)
        guard location.isPrefix else {
            throw StoreError.badSetting("\(location): backups lie below a prefix, which ends with a slash")
        }
        return location
    }

    private func access(_ location: StoreLocation, _ settings: BackupSettings) throws -> StoreAccess {
        try StoreAccess.standalone(
            location, settings, options: options, transport: transport, log: recorder.log, stop: stop)
    }
}
