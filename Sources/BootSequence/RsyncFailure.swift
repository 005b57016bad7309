internal import HostSystem

/// Why a delta was not brought, by what it means and not by rsync's number: 5 alone stands for a wrong password, an
/// unknown module, a missing folder, a full server and something that is no rsync at all. The texts are rsync's own
/// words.
public indirect enum RsyncFailure: Error, Sendable, Equatable, CustomStringConvertible {
    case notInstalled(String)
    /// The version that is there; rsync 3.1 is needed.
    case tooOld(String)
    case badSetting(RsyncSource.Problem)
    /// A key or known-hosts file on this machine: path and what is wrong with it.
    case badKeyFile(String, String)
    case badPasswordFile(String)
    /// The folder that the delta would be brought into is a symlink, or none.
    case badDirectory(String)

    /// No connection: refused, no route, no such name, no answer.
    case unreachable(String)
    /// The daemon serves as many clients as it may.
    case busy(String)
    /// The connection broke, or its bytes made no sense.
    case connectionLost(String)
    /// Nothing arrived for so long.
    case stalled(Duration)

    /// Something answers that is no rsync daemon, or there is no rsync behind ssh.
    case wrongServer(String)
    case authentication(String)
    case hostKey(String)
    case accessDenied(String)
    case unknownModule(String)
    case missingPath(String)
    /// Bad options on either side, rsync's 1 to 4.
    case refused(String)

    /// The marker's name; the source may be the wrong folder or an unmounted disk.
    case markerMissing(String)
    /// Name, and the first line that is in it.
    case markerForeign(String, found: String)
    /// Nothing but the marker is in the source.
    case emptySource
    /// How many would be deleted, of how many entries, and how many may be. `would` is nil where rsync itself stopped.
    case deletionLimit(would: Int?, of: Int, allowed: Int)

    /// Some files could not be read or written.
    case partial(String)
    /// Files went away while they were read.
    case vanished(String)
    case diskFull(String)
    case fileError(String)
    case killed(Int32)
    case other(Int32, String)

    /// The transfer had begun when this happened: the folder is neither as it was nor as the source.
    case incomplete(RsyncFailure)

    /// The orchestrator is absent and the folder untouched, so that the policy `serve-backup` applies. What only a
    /// person can repair (a wrong password, a missing marker) is not this, and a folder half changed is never served.
    public var isUnreachable: Bool {
        switch self {
        case .unreachable, .busy, .connectionLost, .stalled: true
        default: false
        }
    }

    /// What happened, whether or not the transfer had begun. Whoever throws the folder away can go by this one's
    /// `isUnreachable`.
    public var cause: RsyncFailure {
        if case .incomplete(let cause) = self { return cause }
        return self
    }

    /// The same run may succeed later without anybody changing anything.
    public var isWorthRetrying: Bool {
        switch self {
        case .unreachable, .busy, .connectionLost, .stalled, .partial, .vanished, .killed: true
        case .incomplete(let cause): cause.isWorthRetrying
        default: false
        }
    }

    // MARK: from rsync's end

    /// Nil for success. `output` is the end of standard error, in the C locale.
    init?(_ result: ChildResult, stallAfter: Duration) {
        switch result.end {
        case .exited(0): return nil
        case .exited(let code): self.init(code: code, errors: result.errors)
        case .signalled(let number): self = .killed(number)
        case .stalled: self = .stalled(stallAfter)
        case .timedOut: self = .connectionLost("took too long and was stopped")
        }
    }

    /// rsync's exit codes are in rsync(1), EXIT VALUES; 255 is ssh's own failure, 126 and 127 a remote shell's.
    init(code: Int32, errors: [UInt8]) {
        let all = String(decoding: errors, as: UTF8.self)
        let text = Self.quote(errors)
        switch code {
        case 1 where all.contains("password file"): self = .badPasswordFile(text)
        case 1...4, 6: self = .refused(text)
        case 5: self = Self.startError(all, text)
        case 10, 35: self = .unreachable(text)
        case 11, 22, 23:
            // 11 is any file error, a full disk among them; a directory that cannot be made for want of room is a 23.
            if Self.fullDisk.contains(where: all.contains) {
                self = .diskFull(text)
            } else if code == 23 && all.contains("change_dir") && all.contains("No such file or directory") {
                self = .missingPath(text)
            } else if code == 23 {
                self = .partial(text)
            } else {
                self = .fileError(text)
            }
        case 12 where all.contains("command not found") || all.contains("rsync: not found"): self = .wrongServer(text)
        case 12, 13, 14, 30: self = .connectionLost(text)
        case 19, 20: self = .killed(15)
        case 24: self = .vanished(text)
        case 25: self = .deletionLimit(would: nil, of: 0, allowed: 0)
        case 126, 127: self = .wrongServer(text)
        case 255: self = Self.shellError(all, text)
        default: self = .other(code, text)
        }
    }

    private static let fullDisk = ["No space left on device", "Disk quota exceeded"]

    /// The daemon's answers, of clientserver.c and authenticate.c.
    private static func startError(_ all: String, _ text: String) -> RsyncFailure {
        if all.contains("max connections") { return .busy(text) }
        if all.contains("auth failed") { return .authentication(text) }
        if all.contains("Unknown module") { return .unknownModule(text) }
        if all.contains("chdir failed") || all.contains("chroot failed") || all.contains("path check failed") {
            return .missingPath(text)
        }
        if all.contains("access denied") { return .accessDenied(text) }
        // An answer that is no greeting comes from another program. A closed connection without one is what a daemon
        // does that is being stopped, and what a proxy does before a dead one.
        if all.contains("rather than greeting") { return .wrongServer(text) }
        if all.contains("did not see server greeting") { return .connectionLost(text) }
        return .refused(text)
    }

    /// ssh's own words, of sshconnect.c and sshconnect2.c.
    private static func shellError(_ all: String, _ text: String) -> RsyncFailure {
        if all.contains("Host key verification failed") || all.contains("host key is known") { return .hostKey(text) }
        if all.contains("Permission denied") || all.contains("Too many authentication failures") {
            return .authentication(text)
        }
        let refusals = ["Connection refused", "timed out", "No route to host", "Could not resolve", "unreachable"]
        return refusals.contains(where: all.contains) ? .unreachable(text) : .connectionLost(text)
    }

    /// The first lines that say something: the cause comes first, rsync's summary last.
    private static func quote(_ errors: [UInt8]) -> String {
        // ssh frames its loudest warning with lines of @.
        errors.split(separator: 0x0a).filter {
            !$0.allSatisfy { $0 == 0x20 || $0 == 0x0d } && !$0.starts(with: [0x40, 0x40])
        }
        .prefix(4)
        .map { Printable.text($0, limit: 300) }.joined(separator: " | ")
    }

    // MARK: words

    public var description: String {
        switch self {
        case .notInstalled(let text): text
        case .tooOld(let version): "rsync here is \(version); 3.1 or later is needed, 3.4.3 or later is safe"
        case .badSetting(let problem): problem.description
        case .badKeyFile(let path, let what): "\(Printable.text(path)) \(what)"
        case .badPasswordFile(let text): "rsync did not take the password file: \(text)"
        case .badDirectory(let text): text
        case .unreachable(let text): "no connection to the orchestrator: \(text)"
        case .busy(let text): "the orchestrator serves as many fronts as it may: \(text)"
        case .connectionLost(let text): "the connection to the orchestrator broke: \(text)"
        case .stalled(let time): "nothing arrived from the orchestrator for \(time.spoken)"
        case .wrongServer(let text): "what answers there is no rsync: \(text)"
        case .authentication(let text): "the orchestrator refused the user or the password: \(text)"
        case .hostKey(let text): "the orchestrator's host key is not the known one: \(text)"
        case .accessDenied(let text): "the orchestrator does not serve this host: \(text)"
        case .unknownModule(let text): "the orchestrator has no such module: \(text)"
        case .missingPath(let text): "the orchestrator has no such folder: \(text)"
        case .refused(let text): "rsync refused: \(text)"
        case .markerMissing(let name):
            "the source holds no \(Printable.text(name)): wrong folder, or a disk that is not mounted"
        case .markerForeign(let name, let found):
            "\(Printable.text(name)) in the source says: this is \"\(Printable.text(found, limit: 80))\", another site"
        case .emptySource: "the source is empty but for its marker"
        case .deletionLimit(.some(let would), let total, let allowed):
            "\(would) of \(total) entries would be deleted; \(allowed) may be"
        case .deletionLimit(nil, _, let allowed):
            "the source lost files during the sync: rsync stopped after \(allowed) deletions, as many as may be"
        case .partial(let text): "some files could not be brought: \(text)"
        case .vanished(let text): "files vanished from the source during the sync: \(text)"
        case .diskFull(let text): "no room left: \(text)"
        case .fileError(let text): "a file could not be written: \(text)"
        case .killed(let number): "rsync was killed by signal \(number)"
        case .other(let code, let text): "rsync ended with \(code): \(text)"
        case .incomplete(let cause): "\(cause) (after the transfer had begun: the folder is incomplete)"
        }
    }

    /// What a person can do next.
    public var advice: String? {
        switch self {
        case .notInstalled: "install rsync on the AMI"
        case .tooOld: "bring rsync on the AMI up to date"
        case .badSetting: "correct the settings"
        case .badKeyFile, .badPasswordFile: "correct the file on this front"
        case .badDirectory: nil
        case .unreachable: "see whether the orchestrator runs and whether a security group lets this front through"
        case .busy: "raise `max connections` of the module in the orchestrator's rsyncd.conf"
        case .connectionLost, .stalled, .killed: "run it again; see the network and the rsync log of the orchestrator"
        case .wrongServer: "see whether delta.from names the right host and port, and whether rsync is installed there"
        case .authentication: "see delta.user with delta.password (or delta.ssh-key), and `auth users` of the module"
        case .hostKey: "put the orchestrator's key into delta.known-hosts, if it is its real one"
        case .accessDenied: "see `hosts allow` of the module in the orchestrator's rsyncd.conf"
        case .unknownModule, .missingPath: "see delta.from, and whether the folder is mounted on the orchestrator"
        case .refused: "see `refuse options` of the module, and the version of rsync on the orchestrator"
        case .markerMissing:
            "see whether the orchestrator's folder is mounted; a new source needs the marker: echo APP > MARKER"
        case .markerForeign: "see delta.from: it leads to another site"
        case .emptySource: "see whether the orchestrator's folder is mounted"
        case .deletionLimit: "if it is meant, raise delta.refuse-deleting-more-than for this once"
        case .partial: "see the permissions of the named files on the orchestrator"
        case .vanished: "run it again when the orchestrator's folder is quiet"
        case .diskFull: "free room or inodes on that file system (df -h, df -i), or lower `keep`"
        case .fileError, .other: nil
        case .incomplete(let cause): cause.advice
        }
    }

    public var status: ExitStatus {
        switch self {
        case .unreachable, .busy, .connectionLost, .stalled, .wrongServer: .unreachable
        case .badSetting: .settings
        case .authentication, .hostKey, .accessDenied, .badKeyFile, .badPasswordFile: .permission
        case .diskFull: .noRoom
        case .incomplete(let cause): cause.status
        default: .failed
        }
    }
}
