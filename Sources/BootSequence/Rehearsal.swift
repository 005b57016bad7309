public import HostSystem

/// The proof before the switch: the staged configuration is served by programs of its own, where no visitor can reach them, and
/// asked for the release's token and the site's page. A wrong database password is found here, while the old release goes on
/// serving everybody.
///
/// amorce runs itself as `amorce rehearse FILE` inside the view of `CheckConfiguration` (overlays with the staged files, folders
/// of its own in the place of those with the live sockets). All programs but the last, PHP-FPM, run in the host's network, since
/// they must reach the database; the last one, the web server, and the questions run in a network namespace of their own, where
/// its port is free.
public struct Rehearsal {
    public struct Program: Sendable, Codable {
        public let command: [String]
        /// Of the host, absolute.
        public let privateFolders: [String]
    }

    public struct Request: Sendable, Codable {
        public let release: ReleaseRecord
        public let probe: ProveRelease.Probe
        /// Foreground programs in the order of the services; the last one listens for visitors.
        public let programs: [Program]
    }

    public enum Verdict: Sendable, Codable {
        case passed
        /// The release answered as itself, and what it answered is wrong.
        case refused(explanation: String, advice: String?)
        /// Nothing can be said: the programs could not be started like this.
        case impossible(reason: String)
    }

    /// The site would not have worked.
    struct Refused: ExplainedError {
        let explanation: String
        let advice: String?
        var description: String { "in a rehearsal before the switch, " + explanation }
    }

    private let request: Request
    private let transport: any HTTPTransport

    public init(file: String, transport: any HTTPTransport) throws {
        request = try RunRecorder.decode(Request.self, from: try FileReading.bytes(file, limit: 16 << 20))
        self.transport = transport
    }

    /// Whether every service can be served aside.
    static func programs(of services: [Service]) -> [Program]? {
        let programs = services.compactMap(\.knownRehearsal)
        return programs.isEmpty ? nil : programs
    }

    public func perform(stop: StopFlag) throws -> Verdict {
        var serving: [ServingProgram] = []
        defer { for program in serving.reversed() { program.end() } }
        do {
            for program in request.programs.dropLast() { serving.append(try ServingProgram(program.command)) }
            try PrivateNetwork.enter()
            if let last = request.programs.last { serving.append(try ServingProgram(last.command)) }
        } catch {
            return .impossible(reason: "\(error)")
        }
        var isReleased = false
        do {
            try ProveRelease(request.probe, transport: transport).rehearse(
                request.release, stop: stop, released: { isReleased = true },
                isOver: { !isReleased && serving.contains { $0.failure != nil } })
            return .passed
        } catch let wrong as ProveRelease.Answer {
            if isReleased { return .refused(explanation: wrong.description, advice: wrong.advice) }
            let failures = serving.compactMap(\.failure)
            return .impossible(reason: failures.isEmpty ? wrong.description : failures.joined(separator: "; "))
        }
    }
}
