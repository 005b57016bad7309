public import HostSystem

/// A service that takes over the new configuration: by systemd, or by commands of its own where there is none.
public struct Service: Sendable, Equatable, Codable {
    public let name: String
    /// Nil: `systemctl reload-or-restart NAME`.
    public let reload: [String]?
    /// Used where `reload` fails because the service does not run yet.
    public let start: [String]?
    /// Checks its staged configuration. Nil: what is known for a service of that name.
    public let check: [String]?
    /// Serves in the foreground, for a rehearsal. Nil: what is known for a service of that name.
    public let rehearse: [String]?
    /// Folders of the host, such as that of its socket, which a rehearsal must have for itself.
    public let privateFolders: [String]

    public init(
        name: String, reload: [String]? = nil, start: [String]? = nil, check: [String]? = nil,
        rehearse: [String]? = nil,
        privateFolders: [String] = []
    ) {
        self.name = name
        self.reload = reload
        self.start = start
        self.check = check
        self.rehearse = rehearse
        self.privateFolders = privateFolders
    }

    private var isApache: Bool { name == "apache2" || name == "httpd" }
    private var isFPM: Bool { name.hasPrefix("php") && name.hasSuffix("-fpm") }

    /// How it serves from the staged configuration without touching the one that runs. Debian's units and tmpfiles.d say which
    /// folders below /run are theirs.
    var knownRehearsal: Rehearsal.Program? {
        if let rehearse { return Rehearsal.Program(command: rehearse, privateFolders: privateFolders) }
        // A service with commands of its own is not the packaged one.
        if reload != nil { return nil }
        if isApache {
            return Rehearsal.Program(
                command: ["apache2ctl", "-D", "FOREGROUND"], privateFolders: ["/run/apache2", "/run/lock/apache2"])
        }
        if isFPM {
            return Rehearsal.Program(
                command: [String(name.dropLast(4)).fpmProgram, "--nodaemonize"], privateFolders: ["/run/php"])
        }
        return nil
    }

    /// The check that Debian's package of that service brings along.
    var knownCheck: [String]? {
        if let check { return check }
        if isApache { return ["apache2ctl", "-t"] }
        if name == "nginx" { return ["nginx", "-t"] }
        if name == "rsyslog" { return ["rsyslogd", "-N1"] }
        if isFPM { return [String(name.dropLast(4)).fpmProgram, "-t"] }
        return nil
    }
}

extension String {
    /// `php8.2` -> `php-fpm8.2`, as Debian names the program.
    fileprivate var fpmProgram: String { "php-fpm" + dropFirst(3) }
}

/// Reloads services, each once, in the order of the settings.
public struct ServiceControl: Sendable {
    public struct Refused: Error, Sendable, CustomStringConvertible {
        public let service: String
        public let command: [String]
        public let explanation: String
        public var description: String { "\(service): \(command.joined(separator: " ")): \(explanation)" }
    }

    let services: [Service]
    private let log: Log
    /// A service that has not reloaded by then is as good as broken.
    private let timeout = Duration.seconds(60)

    public init(_ services: [Service], log: Log) {
        self.services = services
        self.log = log
    }

    /// Every service has loaded what is live now, and runs.
    public func reload(stop: StopFlag) throws {
        for service in services {
            // reload-or-restart starts a unit that does not run. amorce's unit is ordered before none of these, so the job
            // never waits for amorce itself.
            let command = service.reload ?? ["systemctl", "reload-or-restart", service.name]
            let result = try run(command, stop)
            if result.isSuccess { continue }
            if let start = service.start {
                let second = try run(start, stop)
                if second.isSuccess { continue }
                throw Refused(service: service.name, command: start, explanation: second.explanation)
            }
            throw Refused(service: service.name, command: command, explanation: try explain(service, result, stop))
        }
    }

    /// Starts what does not run, and leaves alone what does: the old release serves again after a reboot whose boot failed.
    public func ensureRunning(stop: StopFlag) {
        for service in services {
            let command = service.start ?? (service.reload == nil ? ["systemctl", "start", service.name] : nil)
            guard let command else { continue }
            do {
                let result = try run(command, stop)
                if !result.isSuccess { log.warning("\(service.name) does not start: \(result.explanation)") }
            } catch {
                log.warning("\(service.name) does not start: \(error)")
            }
        }
    }

    private func run(_ command: [String], _ stop: StopFlag) throws -> ChildResult {
        var options = ChildProcess.Options()
        options.timeout = timeout
        log.detail("running \(command.joined(separator: " "))")
        return try ChildProcess.run(command, options: options, stop: stop)
    }

    /// systemctl's own message says only where to look; the unit's last lines say what is wrong.
    private func explain(_ service: Service, _ result: ChildResult, _ stop: StopFlag) throws -> String {
        guard service.reload == nil,
            let journal = try? run(["journalctl", "-u", service.name, "-n", "5", "-o", "cat", "--no-pager"], stop),
            journal.isSuccess, !journal.output.isEmpty
        else { return result.explanation }
        return Printable.text(journal.output.split(separator: 0x0a).suffix(3).joined(separator: [0x20, 0x7c, 0x20]))
    }
}
