public import HostSystem

/// The exit codes of amorce: an interface that scripts and units rely on, frozen. The numbers from 64 to 78 are those of
/// sysexits(3), 124 is timeout(1)'s, 128+n the shell's.
public enum ExitStatus: Sendable, Equatable {
    case done
    case failed
    case usage
    /// A template or an archive that cannot be used as it is.
    case badInput
    /// A service did not answer: metadata, store, orchestrator.
    case unreachable
    case noRoom
    /// Another run holds the lock.
    case locked
    /// Permission on this host, or an IAM action that is missing.
    case permission
    case settings
    case deadline
    case signal(Int32)

    public var code: Int32 {
        switch self {
        case .done: 0
        case .failed: 1
        case .usage: 64
        case .badInput: 65
        case .unreachable: 69
        case .noRoom: 73
        case .locked: 75
        case .permission: 77
        case .settings: 78
        case .deadline: 124
        case .signal(let number): 128 + number
        }
    }

    public init(_ reason: StopReason) {
        switch reason {
        case .deadline: self = .deadline
        case .signal(let number): self = .signal(number)
        }
    }
}

/// What `amorce status` exits with, after the LSB's convention for `status`.
public enum FrontState: String, Sendable, Codable {
    case ready, degraded, failed, running
    case neverRun = "never-run"

    public var exitCode: Int32 {
        switch self {
        case .ready: 0
        case .failed: 1
        case .degraded: 2
        case .neverRun: 3
        case .running: 4
        }
    }
}
