internal import ConfigTemplates
internal import HostSystem

/// Collects what is wrong while settings are read, so that all of it can be told at once. Used by one thread.
final class ProblemList {
    private(set) var problems: [SettingsProblem] = []

    func add(_ origin: SettingsOrigin, _ message: String) {
        problems.append(SettingsProblem(origin: origin, message: message))
    }
}

/// Reads one map of the settings by the names and types that its caller asks for. A value of the wrong type becomes a problem
/// and counts as absent; a key that nobody asked for is a problem when `finish` is called.
final class SettingsReader {
    private let tree: SettingsTree?
    private let path: String
    let problemList: ProblemList
    private var known: [String] = []
    /// Dotted paths of every single-value setting asked for, here and below.
    private(set) var scalars: [String] = []

    init(_ tree: SettingsTree?, path: String = "", problems: ProblemList) {
        problemList = problems
        self.path = path
        if let tree, !tree.isNull {
            if case .map = tree.content {
                self.tree = tree
            } else {
                problems.add(tree.origin, "`\(path)` must be a map of keys and values")
                self.tree = nil
            }
        } else {
            self.tree = nil
        }
    }

    var origin: SettingsOrigin { tree?.origin ?? SettingsOrigin("defaults") }
    var isPresent: Bool { tree != nil }

    func full(_ key: String) -> String { path.isEmpty ? key : path + "." + key }

    func problem(_ key: String, _ message: String) {
        problemList.add(tree?[key]?.origin ?? origin, "`\(full(key))` \(message)")
    }

    /// The raw node; null counts as absent.
    func node(_ key: String) -> SettingsTree? {
        known.append(key)
        guard let node = tree?[key], !node.isNull else { return nil }
        return node
    }

    func section(_ key: String) -> SettingsReader {
        SettingsReader(node(key), path: full(key), problems: problemList)
    }

    /// A child reader's single values count as settable from outside.
    func adopt(_ child: SettingsReader) { scalars += child.scalars }

    func text(_ key: String) -> String? {
        scalars.append(full(key))
        guard let node = node(key) else { return nil }
        guard case .scalar(let text, _) = node.content else {
            problem(key, "must be a single value")
            return nil
        }
        return text
    }

    /// A single value that `parse` understands; `form` says what it must look like.
    func value<Value>(_ key: String, form: String, _ parse: (String) -> Value?) -> Value? {
        guard let text = text(key) else { return nil }
        guard let value = parse(text) else {
            problem(key, "must be \(form)")
            return nil
        }
        return value
    }

    func required(_ key: String) -> String? {
        if let text = text(key), !text.isEmpty { return text }
        if tree?[key] == nil || tree?[key]?.isNull == true { problemList.add(origin, "`\(full(key))` is missing") }
        return nil
    }

    func duration(_ key: String) -> Duration? {
        value(key, form: "a duration such as 90s, 10m or 36h") { Duration(parsing: $0) }
    }

    func integer(_ key: String, _ range: ClosedRange<Int>) -> Int? {
        value(key, form: "a whole number from \(range.lowerBound) to \(range.upperBound)") { text in
            Int(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    func boolean(_ key: String) -> Bool? { value(key, form: "true or false", Self.boolean) }

    func choice<Choice: RawRepresentable & CaseIterable>(_ key: String, _ type: Choice.Type) -> Choice?
    where Choice.RawValue == String {
        value(key, form: "one of: " + type.allCases.map(\.rawValue).joined(separator: ", ")) { Choice(rawValue: $0) }
    }

    static func boolean(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "yes", "on": true
        case "false", "no", "off": false
        default: nil
        }
    }

    /// A list of single values; a single value counts as a list of one.
    func texts(_ key: String) -> [String]? {
        guard let node = node(key) else { return nil }
        switch node.content {
        case .scalar(let text, _): return [text]
        case .list(let items):
            var result: [String] = []
            for item in items {
                guard case .scalar(let text, _) = item.content, !item.isNull else {
                    problemList.add(item.origin, "`\(full(key))` must be a list of single values")
                    return nil
                }
                result.append(text)
            }
            return result
        case .map:
            problem(key, "must be a list")
            return nil
        }
    }

    func items(_ key: String) -> [SettingsTree] {
        guard let node = node(key) else { return [] }
        if case .list(let items) = node.content { return items }
        return [node]
    }

    /// Reports the keys that nobody asked for.
    func finish() {
        guard case .map(let entries)? = tree?.content else { return }
        for entry in entries where !known.contains(entry.key) {
            let name = Printable.text(entry.key, limit: 60)
            let nearest = Spelling.nearest(to: entry.key, among: known).map { "; did you mean `\($0)`?" } ?? ""
            problemList.add(entry.origin, "unknown key `\(path.isEmpty ? name : path + "." + name)`" + nearest)
        }
    }
}
