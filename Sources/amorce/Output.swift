import FoundationEssentials
import HostSystem

/// Data on standard output: what a program reads, or a person in a pipe.
enum Output {
    static func line(_ text: String) { Host.write(Array((text + "\n").utf8), descriptor: 1) }

    static func json(_ value: some Encodable) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(value) else { return }
        Host.write(Array(bytes) + [0x0a], descriptor: 1)
    }

    static var isColored: Bool {
        let environment = Host.environment()
        return Host.terminalWidth(descriptor: 1) != nil && (environment["NO_COLOR"] ?? "").isEmpty
            && environment["TERM"] != "dumb"
    }
}
