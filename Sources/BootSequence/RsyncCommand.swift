internal import HostSystem

/// What `rsync --version` says.
public struct RsyncVersion: Sendable, Equatable, Comparable, CustomStringConvertible {
    public let parts: [Int]

    public init(_ parts: [Int]) { self.parts = parts }

    /// From the first line, `rsync  version 3.5.0  protocol version 32`. Nil for anything else: openrsync, which answers
    /// `openrsync: protocol version 29`, has none of the options that are needed here.
    public init?(parsing output: String) {
        let words = output.prefix { $0 != "\n" }.split(separator: " ")
        guard words.count >= 3, words[0] == "rsync", words[1] == "version" else { return nil }
        let digits = words[2].drop { $0 == "v" }.prefix { $0.isNumber || $0 == "." }
        let parts = digits.split(separator: ".").compactMap { Int($0) }
        guard parts.count >= 2 else { return nil }
        self.parts = parts
    }

    public static func < (left: Self, right: Self) -> Bool { left.parts.lexicographicallyPrecedes(right.parts) }
    public var description: String { parts.map(String.init).joined(separator: ".") }

    /// --info=progress2, --outbuf and --chown are of 3.1.
    static let oldestUsable = RsyncVersion([3, 1])
    /// Before it a hostile server could write outside the destination (CVE-2024-12087) or crash the client (CVE-2026-43620).
    /// A distribution may have put these repairs into an older version, which its number does not show: a warning, no more.
    static let oldestSafe = RsyncVersion([3, 4, 3])
    /// From here on rsync itself quotes what the shell on the other side would expand.
    static let quotesRemoteArguments = RsyncVersion([3, 2, 4])
}

/// The argument vectors for rsync. Pure: nothing is run or looked at.
///
/// What the flags decide:
/// - `--recursive --links --times --perms`, with the source's modes masked: no set-id or sticky bit, nothing writable for group
///   or others, everything readable for its owner. Never wider than the source: a 0600 file stays closed.
/// - No devices, no FIFOs; owner and group are never the source's: those of the running user, or the ones that were asked for.
/// - No `--hard-links`: names of a release may share inodes with the release before it, and rsync would tie more of them.
/// - `--safe-links`: a symlink that leads out of the release is not brought.
/// - `--delete-delay`: what is gone is deleted after all else has arrived, so a broken connection deletes nothing. Never
///   `--ignore-errors`: where the source cannot be read whole, rsync deletes nothing.
/// - No `--delay-updates`: it makes a visible folder a little less torn, and this one is not visible before its switch; it would
///   need the room twice.
/// - `--partial-dir`: a large file goes on where a broken connection left it. Never `--inplace`, which would write into an inode
///   that a hard link shares with the release before.
/// - No `--timeout`: it makes both sides send keep-alives, which then count as life while nothing arrives. `RsyncWatch` looks
///   at the bytes that were read.
public struct RsyncCommand: Sendable, Equatable {
    public let source: RsyncSource
    private let version: RsyncVersion
    private let settings: DeltaSettings

    /// What begins every line that is an itemised change. Names are escaped by rsync, so no name can make such a line.
    static let mark = "amorce:"
    static let partialFolder = ".amorce-partial"

    /// Throws what is wrong with the settings, whatever the state of the machine.
    public init(_ settings: DeltaSettings, version: RsyncVersion) throws(RsyncSource.Problem) {
        source = try RsyncSource(parsing: settings.from).with(user: settings.user)
        self.version = version
        self.settings = settings
        if !Self.isBelow(settings.marker) || settings.marker.contains(where: { "*?[]\\".contains($0) }) {
            throw .setting("marker", "is no plain file name")
        }
        for pattern in settings.exclude where pattern.isEmpty || !RsyncSource.isClean(pattern) {
            throw .setting("exclude", "holds an empty pattern or one with a line break")
        }
        guard (0...1).contains(settings.refuseDeletingMoreThan) else {
            throw .setting("refuse-deleting-more-than", "is no share from 0 to 100%")
        }
        if let password = settings.password {
            // rsync reads the first line of the password file, into 512 bytes.
            let bytes = password.revealedBytes
            guard !bytes.isEmpty, bytes.count < 500, !bytes.contains(where: { $0 == 0x0a || $0 == 0x0d || $0 == 0 }) else {
                throw .setting("password", "must be one line of 1 to 499 bytes")
            }
        }
        for (name, path) in [("ssh-key", settings.sshKey), ("known-hosts", settings.knownHosts)] {
            guard let path else { continue }
            // rsync splits -e at blanks and quotes, and ssh expands %, ~ and ${} in these two: none of it is let near them.
            let isPlain = path.hasPrefix("/") && path.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
                default: Array("_./+=@:,-".utf8).contains(byte)
                }
            }
            if !isPlain { throw .setting(name, "must be an absolute path of letters, digits and _ . / + = @ : , -") }
        }
    }

    /// Fetches the marker file alone.
    public func fetchMarker(into folder: String, passwordFile: String?) -> [String] {
        // A marker that is a symlink, a folder or a large file is not brought, and so missing.
        base(passwordFile) + ["--max-size=65536", "--", source.operand(of: settings.marker), folder + "/"]
    }

    /// Says what a transfer would do, one line each, and how much the source holds; changes nothing.
    public func plan(
        into directory: String, protecting shared: [String], owner: (owner: UInt32, group: UInt32)?, passwordFile: String?
    ) -> [String] {
        base(passwordFile) + ["--dry-run", "--stats", "--info=symsafe"] + tree(shared, owner)
            + ["--", source.operand, directory + "/"]
    }

    public func transfer(
        into directory: String, protecting shared: [String], owner: (owner: UInt32, group: UInt32)?,
        deletingAtMost limit: Int, passwordFile: String?
    ) -> [String] {
        base(passwordFile) + ["--info=progress2", "--max-delete=\(limit)"] + tree(shared, owner)
            + ["--", source.operand, directory + "/"]
    }

    private func base(_ passwordFile: String?) -> [String] {
        var words = ["rsync", "--no-motd", "--no-human-readable", "--outbuf=N"]
        switch source.place {
        case .daemon:
            words.append("--contimeout=\(seconds)")
            if let passwordFile { words.append("--password-file=" + passwordFile) }
        case .ssh(_, _, let port, _):
            words += ["-e", remoteShell(port: port)]
            if version < .quotesRemoteArguments { words.append("--protect-args") }
        case .folder:
            words.append("--whole-file")
        }
        return words
    }

    private func tree(_ shared: [String], _ owner: (owner: UInt32, group: UInt32)?) -> [String] {
        var words = ["--recursive", "--links", "--times", "--perms", "--chmod=u+rwX,go-w,a-s,-t"]
        if let owner {
            words += ["--owner", "--group", "--numeric-ids", "--chown=\(owner.owner):\(owner.group)"]
        } else {
            words += ["--no-owner", "--no-group"]
        }
        words += ["--no-devices", "--no-specials", "--safe-links", "--delete-delay", "--partial-dir=" + Self.partialFolder]
        // The first rule that matches wins, so these stand before the user's own. `--filter` and not `--exclude`: that reads
        // a lone `!` as "forget every rule", these protections among them.
        let protected = [settings.marker] + shared
        words += protected.map { "--filter=- /" + Self.literal($0) } + settings.exclude.map { "--filter=- " + $0 }
        return words + ["--out-format=\(Self.mark)%i:%l:%n"]
    }

    /// Nothing in it needs quotes: every part was checked for what rsync and ssh would take apart.
    private func remoteShell(port: Int?) -> String {
        var words = ["ssh", "-T", "-x"]
        var options = [
            "BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=\(seconds)", "ConnectionAttempts=1",
            "ForwardAgent=no", "ClearAllForwardings=yes", "PermitLocalCommand=no",
            // A shared connection would leave a process behind that outlives this run.
            "ControlMaster=no", "ControlPath=none",
        ]
        if let key = settings.sshKey {
            words += ["-i", key]
            options.append("IdentitiesOnly=yes")
        }
        if let known = settings.knownHosts {
            options += ["UserKnownHostsFile=" + known, "GlobalKnownHostsFile=/dev/null"]
        }
        if let port { words += ["-p", String(port)] }
        return (words + options.flatMap { ["-o", $0] }).joined(separator: " ")
    }

    private var seconds: Int { max(1, Int(settings.connectTimeout.inSeconds.rounded(.up))) }

    /// A relative path as a pattern that matches itself alone. rsync takes a backslash for an escape only in a pattern that
    /// holds a wildcard (rsync(1), PATTERN MATCHING RULES).
    static func literal(_ path: String) -> String {
        let plain = path.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
        guard plain.contains(where: { "*?[".contains($0) }) else { return plain }
        return plain.map { "*?[\\".contains($0) ? "\\\($0)" : String($0) }.joined()
    }

    /// Whether a path stays below the folder that it is relative to.
    static func isBelow(_ path: String) -> Bool {
        let parts = path.split(separator: "/").filter { $0 != "." }
        return !parts.isEmpty && !path.hasPrefix("/") && !parts.contains("..") && RsyncSource.isClean(path)
    }
}
