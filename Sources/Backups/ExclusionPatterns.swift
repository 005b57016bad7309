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
        // As git reads them: the byte order mark of an editor and the carriage returns of another system are no part of a pattern.
        let text = text.starts(with: [0xef, 0xbb, 0xbf]) ? text.dropFirst(3) : text[...]
        for line in text.split(separator: 0x0a) { try add(Array(line.last == 0x0d ? line.dropLast() : line)) }
    }

    public mutating func add(_ text: String) throws(Invalid) { try add(Array(text.utf8)) }

    private mutating func add(_ line: [UInt8]) throws(Invalid) {
        var text = line[...]
        if text.first == UInt8(ascii: "#") { return }
        text = text.prefix(Self.lengthWithoutSpaces(text))
        if text.isEmpty { return }
        let takesBack = text.first == UInt8(ascii: "!")
        if takesBack { text.removeFirst() }
        let isForDirectories = text.last == UInt8(ascii: "/")
        if isForDirectories { text.removeLast() }
        let isTied = text.contains(UInt8(ascii: "/"))
        let parts = text.split(separator: UInt8(ascii: "/")).map { Array($0) }
            .filter { !$0.elementsEqual(".".utf8) }
        guard !parts.isEmpty, !parts.contains(where: { $0.elementsEqual("..".utf8) }) else {
            throw Invalid(pattern: String(decoding: line, as: UTF8.self))
        }
        patterns.append(
            Pattern(parts: parts, isTied: isTied, isForDirectories: isForDirectories, takesBack: takesBack))
    }

    /// Spaces at the end count only behind a backslash.
    private static func lengthWithoutSpaces(_ text: ArraySlice<UInt8>) -> Int {
        var length = 0
        var position = text.startIndex
        while position < text.endIndex {
            let isEscape = text[position] == UInt8(ascii: "\\")
            let isSpace = text[position] == 0x20
            position = min(text.endIndex, position + (isEscape ? 2 : 1))
            if !isSpace { length = position - text.startIndex }
        }
        return length
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

    /// As with the star within a name, `**` is tried again from the last place only.
    private static func matches(_ parts: ArraySlice<[UInt8]>, _ names: ArraySlice<[UInt8]>) -> Bool {
        var parts = parts
        var names = names
        var retry: (parts: ArraySlice<[UInt8]>, names: ArraySlice<[UInt8]>)?
        while true {
            if let part = parts.first, part.elementsEqual("**".utf8) {
                parts.removeFirst()
                // At the end it means everything inside, and not the directory itself.
                if parts.isEmpty { return !names.isEmpty }
                retry = (parts, names)
            } else if parts.isEmpty && names.isEmpty {
                return true
            } else if let part = parts.first, let name = names.first, matches(part[...], name[...]) {
                parts.removeFirst()
                names.removeFirst()
            } else if let last = retry, !last.names.isEmpty {
                parts = last.parts
                names = last.names.dropFirst()
                retry = (parts, names)
            } else {
                return false
            }
        }
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
        // A backslash at the end, and a set without an end, match nothing.
        case UInt8(ascii: "\\"):
            guard pattern.count > 1 else { return nil }
            return pattern[pattern.startIndex + 1] == byte ? pattern.dropFirst(2) : nil
        case UInt8(ascii: "["):
            guard let (isIn, rest) = set(pattern.dropFirst(), byte) else { return nil }
            return isIn ? rest : nil
        case let first?: return first == byte ? pattern.dropFirst() : nil
        }
    }

    /// Whether the byte is in the set that begins here, and what follows the set; nil where the set has no end, or is none.
    private static func set(_ text: ArraySlice<UInt8>, _ byte: UInt8) -> (Bool, ArraySlice<UInt8>)? {
        var rest = text
        let isNegated = rest.first == UInt8(ascii: "!") || rest.first == UInt8(ascii: "^")
        if isNegated { rest.removeFirst() }
        var isIn = false
        var isFirst = true
        while let low = rest.popFirst() {
            if low == UInt8(ascii: "]") && !isFirst { return (isIn != isNegated, rest) }
            isFirst = false
            if low == UInt8(ascii: "["), rest.first == UInt8(ascii: ":"),
                let end = rest.firstIndex(of: UInt8(ascii: "]")),
                rest[end - 1] == UInt8(ascii: ":"), end - 1 > rest.startIndex
            {
                let name = String(decoding: rest[(rest.startIndex + 1)..<(end - 1)], as: UTF8.self)
                guard let isOfClass = isOf(class: name, byte) else { return nil }
                if isOfClass { isIn = true }
                rest = rest[(end + 1)...]
                continue
            }
            func unescaped(_ element: UInt8) -> UInt8? { element == UInt8(ascii: "\\") ? rest.popFirst() : element }
            guard let low = unescaped(low) else { return nil }
            var high = low
            if rest.first == UInt8(ascii: "-"), let end = rest.dropFirst().first, end != UInt8(ascii: "]") {
                rest.removeFirst(2)
                guard let end = unescaped(end) else { return nil }
                high = end
            }
            if low <= byte && byte <= high { isIn = true }
        }
        return nil
    }

    /// POSIX.1-2017, "RE Bracket Expression", in the C locale; nil for a name that is none of its classes.
    private static func isOf(class name: String, _ byte: UInt8) -> Bool? {
        let isLower = (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
        let isUpper = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
        let isDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        let isGraph = (0x21...0x7e).contains(byte)
        switch name {
        case "alnum": return isLower || isUpper || isDigit
        case "alpha": return isLower || isUpper
        case "blank": return byte == 0x20 || byte == 0x09
        case "cntrl": return byte < 0x20 || byte == 0x7f
        case "digit": return isDigit
        case "graph": return isGraph
        case "lower": return isLower
        case "print": return isGraph || byte == 0x20
        case "punct": return isGraph && !isLower && !isUpper && !isDigit
        case "space": return byte == 0x20 || (0x09...0x0d).contains(byte)
        case "upper": return isUpper
        case "xdigit": return isDigit || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
        default: return nil
        }
    }
}
