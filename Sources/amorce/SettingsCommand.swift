import ArgumentParser
import BootSequence
import HostSystem

struct SettingsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "settings",
        abstract: "Show the merged settings and where each value came from, secrets hidden.")

    private struct Line: Encodable {
        let path: String
        let value: String
        let origin: String
    }

    @OptionGroup var options: GlobalOptions
    @Flag(help: "Print them as JSON.") var json = false

    func run() throws {
        let settled = try options.inspect { (run, transport, stop, observer) throws(BootFailure) in
            try Preview.settings(run, transport: transport, stop: stop, observer: observer)
        }
        let lines = settled.tree.listing()
        if json {
            return Output.json(lines.map { Line(path: $0.path, value: $0.value, origin: $0.origin.description) })
        }
        let width = min(60, lines.map { $0.path.count + $0.value.count + 2 }.max() ?? 0)
        for (path, value, origin) in lines {
            let text = "\(path): \(value)"
            Output.line(text + String(repeating: " ", count: max(1, width - text.count + 2)) + "# \(origin)")
        }
    }
}
