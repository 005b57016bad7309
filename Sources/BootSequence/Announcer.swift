public import HostSystem

/// The result of a run as it is told to whoever waits for it.
public enum ReadinessResult: Sendable {
    case ready(HealthFile.Contents)
    /// `serving`: what the front goes on serving, proved, where it was ready before this run.
    case failed(RunReport, serving: HealthFile.Contents?)
}

/// One way to tell a result: the health file, later a platform's call. `announce` is called at most once per run, after the
/// proof or after the failure; to be told twice by two runs must do no harm.
public protocol Announcer: Sendable {
    var name: String { get }
    func announce(_ result: ReadinessResult, stop: StopFlag) throws
}

/// Writes or removes `/run/amorce/ready`.
public struct HealthFileAnnouncer: Announcer {
    public let name = "health-file"
    private let file: HealthFile

    public init(layout: HostLayout) { file = HealthFile(layout: layout) }

    public func announce(_ result: ReadinessResult, stop: StopFlag) throws {
        switch result {
        case .ready(let contents): try file.write(contents)
        case .failed(_, let serving?): try file.write(serving)
        case .failed(_, nil): try file.withdraw()
        }
    }
}
