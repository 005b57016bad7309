import ArgumentParser
import BootSequence
import HostSystem

extension Console.Format: ExpressibleByArgument {}

/// How option values of types from elsewhere are read.
enum OptionValue {
    /// A URL as it is, or a path of this host as one.
    static func address(_ text: String) -> String {
        text.contains("://") ? text : "file://" + GlobalOptions.absolute(text)
    }

    static func duration(_ text: String) throws -> Duration {
        guard let duration = Duration(parsing: text) else {
            throw ValidationError("'\(text)' is no duration such as 90s or 10m")
        }
        return duration
    }

    static func amount(_ text: String) throws -> ByteCount {
        guard let amount = ByteCount(parsing: text) else {
            throw ValidationError("'\(text)' is no amount such as 32MiB")
        }
        return amount
    }
}

/// The flags that mean the same for every command.
struct GlobalOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Another root for every path of the host.", valueName: "dir"))
    var root = "/"

    @Option(help: ArgumentHelp("Read this file in place of /etc/amorce/amorce.yaml and conf.d.", valueName: "file"))
    var config: String?

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp("Set one value, above all other settings; may be repeated.", valueName: "key=value"))
    var assignments: [String] = []

    @Option(help: ArgumentHelp("A recorded instance in place of the metadata service.", valueName: "file"))
    var metadata: String?

    @Option(
        help: ArgumentHelp("Give up after this long, such as 90s or 10m.", valueName: "duration"),
        transform: OptionValue.duration)
    var deadline: Duration?

    @Flag(name: .shortAndLong, help: "Show details.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Show errors only.")
    var quiet = false

    @Option(help: "How messages look on standard error: text or json.")
    var logFormat = Console.Format.text

    var layout: HostLayout { HostLayout(root: root == "/" ? "/" : Self.absolute(root)) }

    /// A path as the person means it: relative to where they stand.
    static func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : (Files.resolved(".") ?? "") + "/" + path
    }

    func runOptions() -> RunOptions {
        var options = RunOptions()
        options.layout = layout
        options.version = BuildInformation.version
        options.sources.configFile = config.map(Self.absolute)
        options.sources.environment = Host.environment()
        options.sources.assignments = assignments
        options.metadataFile = metadata.map(Self.absolute)
        options.deadline = deadline
        return options
    }

    func console(keepsLog: Bool) -> Console {
        Console(
            .init(
                format: logFormat, isVerbose: verbose, isQuiet: quiet, logFile: keepsLog ? layout.logFile : nil))
    }

    /// The flag that ends a run, raised by signals and the deadline from now on.
    func stopFlag() -> StopFlag {
        let stop = StopFlag(deadline: deadline)
        Host.stopOnSignals(stop)
        return stop
    }

    func transport() -> CurlTransport { CurlTransport(userAgent: "amorce/" + BuildInformation.version) }

    /// Runs one of the commands that change a front, and ends with its exit code.
    func perform(_ command: RunCommand, printsReport: Bool) throws {
        let console = console(keepsLog: true)
        let status = BootSequence.perform(
            command, runOptions(), transport: transport(), stop: stopFlag(),
            observer: { event in
                console.show(event)
                if printsReport, case .ended(let report) = event { Output.json(report) }
            })
        if status != .done { throw ExitCode(status.code) }
    }

    /// Runs what changes nothing; a failure is shown as the run of a front would show it.
    func inspect<Result>(
        _ body: (
            RunOptions, any HTTPTransport, StopFlag, @escaping @Sendable (RunEvent) -> Void
        ) throws(BootFailure) -> Result
    ) throws -> Result {
        let console = console(keepsLog: false)
        do {
            return try body(runOptions(), transport(), stopFlag(), console.show)
        } catch {
            throw refusal(error)
        }
    }

    /// Shows a failure as the run of a front would, and gives the exit code that says it.
    func refusal(_ failure: BootFailure) -> ExitCode {
        console(keepsLog: false).show(failure: failure)
        return ExitCode(failure.status.code)
    }
}
