public import HostSystem

/// Runs a program to its end; a test that needs it to succeed uses `check`.
public enum Program {
    public struct Failed: Error, CustomStringConvertible {
        public let description: String
    }

    public static func run(
        _ arguments: [String], environment: [String: String] = ChildProcess.cleanEnvironment, input: [UInt8] = [],
        timeout: Duration = .seconds(120)
    ) throws -> ChildResult {
        var options = ChildProcess.Options()
        options.input = input
        options.timeout = timeout
        options.outputLimit = 64 << 20
        return try ChildProcess.run(arguments, environment: environment, options: options, stop: .bounded())
    }

    /// Throws unless it exits with 0; returns its standard output.
    @discardableResult
    public static func check(
        _ arguments: [String], environment: [String: String] = ChildProcess.cleanEnvironment, input: [UInt8] = []
    ) throws -> [UInt8] {
        let result = try run(arguments, environment: environment, input: input)
        guard result.isSuccess else {
            throw Failed(description: "\(arguments.joined(separator: " ")): \(result.explanation)")
        }
        return result.output
    }
}
