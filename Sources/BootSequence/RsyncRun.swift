internal import HostSystem

/// One sync under way: rsync looked at, settings checked, the folder held open, the password in its file. Used on one thread.
/// The work folder, and the password with it, goes with the last reference.
final class RsyncRun {
    struct Preview {
        let items: [RsyncItem]
        /// Files and symlinks in the source.
        let files: Int
        /// Entries in the folder.
        let existing: Int
        let deletions: Int
        let deletionsAllowed: Int
        let bytes: Int64
        let transfers: Int
    }

    private let settings: DeltaSettings
    private let app: String
    private let log: Log
    private let stop: StopFlag
    private let command: RsyncCommand
    private let environment: [String: String]
    private let directory: String
    private let shared: [String]
    private let owner: (owner: UInt32, group: UInt32)?
    private let workFolder: String
    private var passwordFile: String?
    private var hasToldLinks = false
    /// What the last transfer itemised, to its end or to where it broke off.
    private(set) var done: [RsyncItem] = []

    init(
        _ settings: DeltaSettings, app: String, layout: HostLayout, log: Log, searchPath: String, directory: String,
        shared: [String], owner: (owner: UInt32, group: UInt32)?, stop: StopFlag
    ) throws {
        self.settings = settings
        self.app = app
        self.log = log
        self.stop = stop
        self.shared = shared
        self.owner = Host.isSuperuser ? owner : nil
        // Nothing inherited: RSYNC_* variables change what rsync does, and messages are known by their words in the C locale.
        environment = ["PATH": searchPath, "LC_ALL": "C"]
        let version = try Self.version(environment, log, stop)
        do throws(RsyncSource.Problem) {
            command = try RsyncCommand(settings, version: version)
        } catch {
            throw RsyncFailure.badSetting(error)
        }
        if !shared.allSatisfy(RsyncCommand.isBelow) { throw RsyncFailure.badSetting(.sharedPath) }
        do throws(HostError) {
            self.directory = try OpenTree(directory).path
        } catch {
            throw RsyncFailure.badDirectory("the release folder is no directory: \(error)")
        }
        try Self.removeLeftovers(in: layout.runtime)
        try Files.makeDirectories(layout.runtime)
        workFolder = "\(layout.runtime)/\(Self.prefix)\(Host.processIdentifier)-\(Host.randomHex(bytes: 6))"
        try Files.makeNewDirectory(workFolder, mode: 0o700)
        try checkPlace(searchPath)
        if case .daemon = command.source.place, let password = settings.password {
            let path = workFolder + "/password"
            // rsync refuses one that others can read, and as root one that is not root's.
            try AtomicFile.prepare(password.revealedBytes + [0x0a], at: path, mode: 0o600)
            passwordFile = path
        }
    }

    deinit { try? Files.removeTree(workFolder) }

    private static let prefix = "rsync-"

    /// Of runs that were killed: a password must not stay behind.
    private static func removeLeftovers(in runtime: String) throws {
        for name in try Files.names(in: runtime) where name.hasPrefix(prefix) {
            let process = name.dropFirst(prefix.count).prefix { $0 != "-" }
            if Int(process) != nil && !Files.exists("/proc/\(process)") { try Files.removeTree(runtime + "/" + name) }
        }
    }

    private static func version(_ environment: [String: String], _ log: Log, _ stop: StopFlag) throws -> RsyncVersion {
        var options = ChildProcess.Options()
        options.timeout = .seconds(20)
        let result: ChildResult
        do {
            result = try ChildProcess.run(["rsync", "--version"], environment: environment, options: options, stop: stop)
        } catch let missing as ChildProcess.NotFound {
            throw RsyncFailure.notInstalled(missing.description)
        }
        let text = String(decoding: result.output, as: UTF8.self)
        guard let version = RsyncVersion(parsing: text), version >= .oldestUsable else {
            throw RsyncFailure.tooOld(Printable.text(String(text.prefix { $0 != "\n" }), limit: 80))
        }
        if version < .oldestSafe {
            log.warning(
                "rsync \(version) is older than \(RsyncVersion.oldestSafe): unless this system's package has the repairs, a "
                    + "hostile orchestrator could write outside the release")
        }
        return version
    }

    /// What can be known to be wrong with the place before anything is started.
    private func checkPlace(_ searchPath: String) throws {
        switch command.source.place {
        case .daemon: break
        case .folder(let path):
            guard try Files.status(path, followingLinks: true)?.kind == .directory else {
                throw RsyncFailure.missingPath("\(Printable.text(path)) is no directory of this machine")
            }
        case .ssh:
            do {
                _ = try ChildProcess.find("ssh", in: searchPath)
            } catch {
                throw RsyncFailure.notInstalled(error.description)
            }
            if let key = settings.sshKey {
                guard let status = try Files.status(key, followingLinks: true), status.kind == .regular else {
                    throw RsyncFailure.badKeyFile(key, "is no file")
                }
                // ssh would say so, leave the key out and then be refused.
                if status.mode & 0o077 != 0 {
                    throw RsyncFailure.badKeyFile(key, "can be used by others: ssh takes a private key of mode 0600 alone")
                }
            }
            if let known = settings.knownHosts, try Files.status(known, followingLinks: true)?.kind != .regular {
                throw RsyncFailure.badKeyFile(known, "is no file")
            }
        }
    }

    // MARK: steps

    /// Throws unless the source carries the app's marker.
    func fetchMarker() throws {
        let folder = workFolder + "/marker"
        try Files.removeTree(folder)
        try Files.makeNewDirectory(folder, mode: 0o700)
        defer { try? Files.removeTree(folder) }
        let (result, _) = try rsync(command.fetchMarker(into: folder, passwordFile: passwordFile))
        let place = folder + "/" + Files.name(of: settings.marker)
        let failure = RsyncFailure(result, stallAfter: settings.stallAfter)
        if case .partial(let text) = failure, text.contains("link_stat") {
            throw RsyncFailure.markerMissing(settings.marker)
        }
        if let failure { throw failure }
        guard try Files.status(place)?.kind == .regular else { throw RsyncFailure.markerMissing(settings.marker) }
        let text = try FileReading.text(place, limit: 64 << 10)
        let found = text.prefix { !$0.isNewline }.trimmed
        guard found == app else { throw RsyncFailure.markerForeign(settings.marker, found: found) }
    }

    /// The dry run, with the counts that the checks need. Throws where the source is empty.
    func preview() throws -> Preview {
        let (result, output) = try rsync(
            command.plan(into: directory, protecting: shared, owner: owner, passwordFile: passwordFile))
        switch RsyncFailure(result, stallAfter: settings.stallAfter) {
        case nil, .vanished: break
        case .some(let failure): throw failure
        }
        guard let files = output.sourceFiles else { throw RsyncFailure.other(0, "no statistics in rsync's answer") }
        if files == 0 { throw RsyncFailure.emptySource }
        if output.unsafeLinks > 0 && !hasToldLinks {
            hasToldLinks = true
            log.warning("\(output.unsafeLinks) symlinks in the source lead out of the site and are not brought")
        }
        let protected = shared.map { $0.split(separator: "/").filter { $0 != "." }.joined(separator: "/") }
        let existing = try OpenTree(directory).count(excluding: Set(protected + [settings.marker]), stop: stop)
        let transfers = output.items.filter(\.isTransfer)
        return Preview(
            items: output.items, files: files, existing: existing,
            deletions: output.items.count { $0.kind == .deleted },
            // The small term keeps 29% of 100 at 29, which no binary fraction is exactly.
            deletionsAllowed: Int((Double(existing) * settings.refuseDeletingMoreThan + 1e-6).rounded(.down)),
            bytes: transfers.reduce(0) { $0 &+ $1.size }, transfers: transfers.count)
    }

    func separateLinks(_ preview: Preview) throws {
        let names = preview.items.filter(\.isChangedInPlace).map(\.name)
        if names.isEmpty { return }
        let count = try OpenTree(directory).separate(names, stop: stop)
        if count > 0 { log.detail("\(count) files get a new mode or owner: given inodes of their own first") }
    }

    func transfer(_ preview: Preview, _ progress: @escaping ProgressHandler) throws {
        done = []
        let (result, output) = try rsync(
            command.transfer(
                into: directory, protecting: shared, owner: owner, deletingAtMost: preview.deletionsAllowed,
                passwordFile: passwordFile)
        ) { now in
            progress(
                Progress(bytes: now.bytes, totalBytes: preview.bytes, items: now.items, totalItems: preview.transfers))
        }
        done = output.items
        switch RsyncFailure(result, stallAfter: settings.stallAfter) {
        case nil: return
        case .deletionLimit:
            throw RsyncFailure.deletionLimit(would: nil, of: preview.existing, allowed: preview.deletionsAllowed)
        case .some(let failure): throw failure
        }
    }

    func removePartialFolders() throws {
        try OpenTree(directory).removeDirectories(named: RsyncCommand.partialFolder, stop: stop)
    }

    private func rsync(
        _ arguments: [String], _ report: ((Progress) -> Void)? = nil
    ) throws -> (ChildResult, RsyncOutput) {
        var output = RsyncOutput()
        let watch = RsyncWatch(limit: settings.stallAfter)
        var options = ChildProcess.Options()
        options.endsGroup = true
        options.isTethered = true
        options.onOutput = { bytes in
            watch.heard()
            if output.feed(bytes) { report?(output.progress) }
        }
        options.isStalled = { watch.isStalled(group: $0) }
        log.detail("running \(arguments.joined(separator: " "))")
        let result = try ChildProcess.run(arguments, environment: environment, options: options, stop: stop)
        return (result, output)
    }
}

/// Sees whether anything still arrives: rsync's own output, or bytes that a process of its group has read, from the network or
/// from a disk. rsync's `--timeout` cannot tell: it takes its own keep-alives, still leaving into a socket whose other end has
/// stopped reading, for life (measured: 617 s with --timeout=3). ssh is left out, since its keep-alives tell of the other
/// machine and not of the rsync on it.
final class RsyncWatch {
    private let limit: Duration
    private var lastSign = ContinuousClock.now
    private var lastLook = ContinuousClock.now
    private var lastSum: Int64?

    init(limit: Duration) { self.limit = limit }

    func heard() { lastSign = ContinuousClock.now }

    func isStalled(group: Int32) -> Bool {
        let now = ContinuousClock.now
        // /proc is read once a second, or a few times within a short limit.
        if now - lastLook < min(.seconds(1), limit / 4) { return false }
        lastLook = now
        let sums = ProcessGroup.members(of: group).filter { $0.name != "ssh" }.compactMap(\.bytesRead)
        let sum = sums.reduce(0, &+)
        // Any change is life: it shrinks when a process ends. Where the kernel tells nothing (/proc hidden from this user)
        // the run's deadline has to do.
        if sums.isEmpty || sum != lastSum {
            lastSum = sum
            lastSign = now
        }
        return now - lastSign > limit
    }
}

extension Substring {
    fileprivate var trimmed: String {
        var rest = self
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}

extension String {
    fileprivate var trimmed: String { self[...].trimmed }
}
