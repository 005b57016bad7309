/// How loud a message is. `detail` is what `-v` adds.
public enum LogLevel: Int, Sendable, Comparable, CaseIterable {
    case detail, notice, warning, error

    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    public var name: String {
        switch self {
        case .detail: "detail"
        case .notice: "notice"
        case .warning: "warning"
        case .error: "error"
        }
    }
}

/// Where messages go. What a message says is decided where the fact is known; how it looks (terminal, plain line, JSON, file)
/// is decided by whoever made the log. Safe from any thread. Secrets cannot get in: `Secret` prints as a mark.
public struct Log: Sendable {
    private let sink: @Sendable (LogLevel, String) -> Void

    public init(_ sink: @escaping @Sendable (LogLevel, String) -> Void) { self.sink = sink }

    public static let silent = Log { _, _ in }

    public func detail(_ message: @autoclosure () -> String) { sink(.detail, message()) }
    public func notice(_ message: @autoclosure () -> String) { sink(.notice, message()) }
    public func warning(_ message: @autoclosure () -> String) { sink(.warning, message()) }
    public func error(_ message: @autoclosure () -> String) { sink(.error, message()) }
}
