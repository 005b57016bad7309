internal import HostSystem
internal import Yams

/// Where a setting was written: a file (or user-data, a variable, a flag) and a line in it, 0 where lines mean nothing.
public struct SettingsOrigin: Sendable, Equatable, CustomStringConvertible {
    public let source: String
    public let line: Int

    public init(_ source: String, line: Int = 0) {
        self.source = source
        self.line = line
    }

    public var description: String { line > 0 ? "\(source):\(line)" : source }
}

/// One thing that is wrong with the settings, and where. Never holds a value: a value may be a password.
public struct SettingsProblem: Sendable, Equatable, CustomStringConvertible {
    public let origin: SettingsOrigin
    public let message: String

    public var description: String { "\(origin): \(message)" }
}

/// Everything that is wrong, in one report.
public struct SettingsProblems: Error, Sendable, CustomStringConvertible {
    public let problems: [SettingsProblem]

    public var description: String { problems.map(\.description).joined(separator: "\n") }
}

/// Settings as they were written, before anything is known of their meaning: a layer, or the merge of several. Every node
/// remembers where it came from.
public struct SettingsTree: Sendable {
    public indirect enum Content: Sendable {
        /// `isPlain`: written without quotes, so `true`, `no` and `~` have YAML's meaning.
        case scalar(String, isPlain: Bool)
        case list([SettingsTree])
        /// In the order of writing.
        case map([Entry])
    }

    public struct Entry: Sendable {
        public let key: String
        public let origin: SettingsOrigin
        public var value: SettingsTree
    }

    public var content: Content
    public let origin: SettingsOrigin

    public init(_ content: Content, origin: SettingsOrigin) {
        self.content = content
        self.origin = origin
    }

    public static let empty = SettingsTree(.map([]), origin: SettingsOrigin("defaults"))

    public subscript(key: String) -> SettingsTree? {
        guard case .map(let entries) = content else { return nil }
        return entries.last { $0.key == key }?.value
    }

    /// Null as YAML writes it.
    var isNull: Bool {
        if case .scalar(let text, let isPlain) = content {
            return isPlain && ["", "~", "null", "Null", "NULL"].contains(text)
        }
        return false
    }

    /// `upper` on top of this: maps are merged key by key, anything else is replaced whole.
    public func merged(with upper: SettingsTree) -> SettingsTree {
        guard case .map(var entries) = content, case .map(let others) = upper.content else { return upper }
        for other in others {
            if let index = entries.firstIndex(where: { $0.key == other.key }) {
                entries[index] = Entry(
                    key: other.key, origin: other.origin, value: entries[index].value.merged(with: other.value))
            } else {
                entries.append(other)
            }
        }
        return SettingsTree(.map(entries), origin: upper.origin)
    }

    /// A map with one value at a dotted path: what a flag or a variable sets.
    static func single(_ path: [String], _ value: String, origin: SettingsOrigin) -> SettingsTree {
        var tree = SettingsTree(.scalar(value, isPlain: true), origin: origin)
        for key in path.reversed() {
            tree = SettingsTree(.map([Entry(key: key, origin: origin, value: tree)]), origin: origin)
        }
        return tree
    }
}

/// Reads YAML into a tree. Aliases are expanded under a cap on the number of nodes, so that a small text cannot become a large
/// tree; duplicate keys are errors.
struct SettingsText {
    static let sizeLimit = 1 << 20
    static let nodeLimit = 20_000

    let source: String
    /// The line of `source` that the text starts on.
    let firstLine: Int
    private var count = 0

    static func parse(_ text: String, source: String, firstLine: Int = 1) throws(SettingsProblems) -> SettingsTree {
        var reader = SettingsText(source: source, firstLine: firstLine)
        return try reader.read(text)
    }

    private init(source: String, firstLine: Int) {
        self.source = source
        self.firstLine = firstLine
    }

    private func refusal(_ message: String, line: Int = 0) -> SettingsProblems {
        SettingsProblems(problems: [
            SettingsProblem(
                origin: SettingsOrigin(source, line: line > 0 ? line + firstLine - 1 : 0), message: message)
        ])
    }

    private mutating func read(_ raw: String) throws(SettingsProblems) -> SettingsTree {
        // A byte order mark is no part of the text (Unicode 15, section 23.8).
        let text = raw.unicodeScalars.first == "\u{FEFF}" ? String(raw.unicodeScalars.dropFirst()) : raw
        if text.utf8.count > Self.sizeLimit { throw refusal("larger than \(ByteCount(Self.sizeLimit))") }
        let node: Node?
        do {
            node = try Yams.compose(yaml: text)
        } catch let error as YamlError {
            throw describe(error)
        } catch {
            throw refusal("not YAML")
        }
        guard let node else { return SettingsTree(.map([]), origin: SettingsOrigin(source, line: firstLine)) }
        let tree = try convert(node)
        if tree.isNull { return SettingsTree(.map([]), origin: tree.origin) }
        guard case .map = tree.content else { throw refusal("settings are a map of keys and values", line: 1) }
        return tree
    }

    /// libYAML's own words, without the excerpt of the text that Yams adds: it could be a password.
    private func describe(_ error: YamlError) -> SettingsProblems {
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            return refusal("not YAML: \(Printable.text(problem))", line: mark.line)
        case .duplicatedKeysInMapping(let keys, let context):
            return refusal(
                "the key \(keys.map { "`\(Printable.text($0, limit: 60))`" }.sorted().joined(separator: ", ")) is there twice",
                line: context.mark.line)
        default:
            return refusal("not YAML: it has bytes that are not UTF-8, or control characters")
        }
    }

    private func origin(_ node: Node) -> SettingsOrigin {
        SettingsOrigin(source, line: (node.mark?.line ?? 1) + firstLine - 1)
    }

    private mutating func convert(_ node: Node) throws(SettingsProblems) -> SettingsTree {
        count += 1
        if count > Self.nodeLimit { throw refusal("more than \(Self.nodeLimit) values") }
        switch node {
        case .scalar(let scalar):
            return SettingsTree(
                .scalar(scalar.string, isPlain: scalar.style == .plain || scalar.style == .any), origin: origin(node))
        case .sequence(let items):
            var list: [SettingsTree] = []
            for item in items { list.append(try convert(item)) }
            return SettingsTree(.list(list), origin: origin(node))
        case .mapping(let pairs):
            var entries: [SettingsTree.Entry] = []
            for (key, value) in pairs {
                guard case .scalar(let name) = key else {
                    throw refusal("a key must be a word", line: key.mark?.line ?? 1)
                }
                entries.append(.init(key: name.string, origin: origin(key), value: try convert(value)))
            }
            return SettingsTree(.map(entries), origin: origin(node))
        case .alias:
            throw refusal("an alias of something that is not there", line: node.mark?.line ?? 1)
        }
    }
}
