/// Which names of a tree are left out of a backup, by the rules of gitignore(5): a line is a pattern; `#` begins a comment; `!`
/// takes back what an earlier line left out; a `/` at the end means directories alone; a `/` elsewhere ties the pattern to the
/// root; `*`, `?` and `[a-z]` do not match a `/`, `**` does. The last pattern that matches decides. What lies below a directory
/// that is left out cannot be taken back. Pure; any thread may ask.
public struct ExclusionPatterns: Sendable {
    public struct Invalid: Error, Sendable, Equatable, CustomStringConvertible {
        public let pattern: String
        public var description: String { "\(pattern): no pattern of a name" }
    }

    private struct Pattern: Sendable {
        let parts: [[UInt8]]
        let isTied: Bool
        let isForDirectories: Bool
        let takesBack: Bool
    }

    private var patterns: [Pattern] = []

    public var isEmpty: Bool { patterns.isEmpty }

    public init() {}

    /// The lines of a file.
    public init(lines text: [UInt8]) throws(Invalid) {
        for line in text.split(whereSeparator: { $0 == 0x0a || $0 == 0x0d }) { try add(Array(line)) }
    }

    public mutating func add(_ text: String) throws(Invalid) { try add(Array(text.utf8)) }

    private mutating func add(_ line: [UInt8]) throws(Invalid) {
        var text = line[...]
        if text.first == UInt8(ascii: "#") { return }
        // Spaces at the end count only behind a backslash.
        while let last = text.last, last == 0x20 || last == 0x09, text.dropLast().last != UInt8(ascii: "\\") {
            text.removeLast()
        }
        if text.isEmpty { return }
        let takesBack = text.first == UInt8(ascii: "!")
        if takesBack { text.removeFirst() }
        let isForDirectories = text.last == UInt8(ascii: "/")
        if isForDirectories { text.removeLast() }
        let isTied = text.contains(UInt8(ascii: "/"))
        let parts = text.split(separator: UInt8(ascii: "/")).map { Array($0) }
        guard !parts.isEmpty, !parts.contains(where: { $0.elementsEqual("..".utf8) }) else {
            throw Invalid(pattern: String(decoding: line, as: UTF8.self))
        }
        patterns.append(
            Pattern(
                parts: parts.filter { !$0.elementsEqual(".".utf8) }, isTied: isTied, isForDirectories: isForDirectories,
                takesBack: takesBack))
    }

    /// Whether the name itself is left out; what is above it is asked first, by whoever walks the tree.
    public func excludes(_ path: [UInt8], isDirectory: Bool) -> Bool {
        if patterns.isEmpty { return false }
        let names = path.split(separator: UInt8(ascii: "/")).map { Array($0) }
        for pattern in patterns.reversed() where isDirectory || !pattern.isForDirectories {
            let isMatch =
                pattern.isTied
                ? Self.matches(pattern.parts[...], names[...])
                : names.last.map { Self.matches(pattern.parts[0][...], $0[...]) } ?? false
            if isMatch { return !pattern.takesBack }
        }
        return false
    }

    private static func matches(_ parts: ArraySlice<[UInt8]>, _ names: ArraySlice<[UInt8]>) -> Bool {
        guard let part = parts.first else { return names.isEmpty }
        if part.elementsEqual("**".utf8) {
            // At the end it means everything inside, and not the directory itself.
            if parts.count == 1 { return !names.isEmpty }
            return (names.startIndex...names.endIndex).contains { matches(parts.dropFirst(), names[$0...]) }
        }
        guard let name = names.first, matches(part[...], name[...]) else { return false }
        return matches(parts.dropFirst(), names.dropFirst())
    }

    /// One name against one part of a pattern. A star is tried again from the last place only, so that no pattern takes long.
    private static func matches(_ pattern: ArraySlice<UInt8>, _ name: ArraySlice<UInt8>) -> Bool {
        var pattern = pattern
        var name = name
        var retry: (pattern: ArraySlice<UInt8>, name: ArraySlice<UInt8>)?
        while true {
            if pattern.first == UInt8(ascii: "*") {
                pattern.removeFirst()
                retry = (pattern, name)
            } else if pattern.isEmpty && name.isEmpty {
                return true
            } else if let byte = name.first, let rest = step(pattern, byte) {
                pattern = rest
                name.removeFirst()
            } else if let last = retry, !last.name.isEmpty {
                pattern = last.pattern
                name = last.name.dropFirst()
                retry = (pattern, name)
            } else {
                return false
            }
        }
    }

    /// What is left of the pattern when its first element matches the byte; nil where it does not.
    private static func step(_ pattern: ArraySlice<UInt8>, _ byte: UInt8) -> ArraySlice<UInt8>? {
        switch pattern.first {
        case nil: return nil
        case UInt8(ascii: "?"): return pattern.dropFirst()
        case UInt8(ascii: "\\") where pattern.count > 1:
            return pattern[pattern.startIndex + 1] == byte ? pattern.dropFirst(2) : nil
        case UInt8(ascii: "["):
            if let (isIn, rest) = set(pattern.dropFirst(), byte) { return isIn ? rest : nil }
            return byte == UInt8(ascii: "[") ? pattern.dropFirst() : nil
        case let first?: return first == byte ? pattern.dropFirst() : nil
        }
    }

    /// Whether the byte is in the set that begins here, and what follows the set; nil where the set has no end.
    private static func set(_ text: ArraySlice<UInt8>, _ byte: UInt8) -> (Bool, ArraySlice<UInt8>)? {
        var rest = text
        let isNegated = rest.first == UInt8(ascii: "!") || rest.first == UInt8(ascii: "^")
        if isNegated { rest.removeFirst() }
        var isIn = false
        var isFirst = true
        while let low = rest.first {
            rest.removeFirst()
            if low == UInt8(ascii: "]") && !isFirst { return (isIn != isNegated, rest) }
            isFirst = false
            var high = low
            if rest.first == UInt8(ascii: "-"), let end = rest.dropFirst().first, end != UInt8(ascii: "]") {
                high = end
                rest.removeFirst(2)
            }
            if low <= byte && byte <= high { isIn = true }
        }
        return nil
    }
}
