/// What one run did, as data. The screen, `status --json` and the log are renderings of it; nothing in it is secret.
public struct RunReport: Sendable, Codable, Equatable {
    public enum Outcome: String, Sendable, Codable {
        case running, ready, degraded, failed
    }

    public struct Step: Sendable, Codable, Equatable {
        public enum State: String, Sendable, Codable {
            case running, done, failed, skipped
        }

        public let name: StepName
        public var state: State
        public var seconds: Double
        /// What came of it, in one line.
        public var summary: String
    }

    public struct Failure: Sendable, Codable, Equatable {
        public let step: StepName
        public let attempted: String
        public let cause: String
        public let advice: String?
        public let exitCode: Int32
        public let retryCanHelp: Bool
    }

    /// Of this format; a reader refuses a higher one.
    public var format = 1
    public let version: String
    public let command: String
    /// Of this run, for the log and the report's name.
    public let run: String
    public let process: Int32
    public let bootIdentifier: String
    public let started: Int64
    public var ended: Int64?
    /// From start to end by the monotonic clock; 0 while it runs.
    public var seconds = 0.0
    public var outcome = Outcome.running
    public var app: String?
    public var environment: String?
    public var instance: String?
    public var release: String?
    /// The release that served before this run, and serves again if the run failed.
    public var previousRelease: String?
    /// When the data that is served was current, seconds since 1970.
    public var dataTime: Int64?
    public var degraded: String?
    public var steps: [Step] = []
    public var warnings: [String] = []
    public var failure: Failure?
    /// Of a failed run: what is served now, in words.
    public var aftermath: String?

    public init(version: String, command: String, run: String, process: Int32, bootIdentifier: String, started: Int64) {
        self.version = version
        self.command = command
        self.run = run
        self.process = process
        self.bootIdentifier = bootIdentifier
        self.started = started
    }

    public var state: FrontState {
        switch outcome {
        case .running: .running
        case .ready: .ready
        case .degraded: .degraded
        case .failed: .failed
        }
    }
}
