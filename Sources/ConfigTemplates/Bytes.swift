extension UInt8 {
    static let tab = UInt8(ascii: "\t")
    static let newline = UInt8(ascii: "\n")
    static let carriageReturn = UInt8(ascii: "\r")
    static let space = UInt8(ascii: " ")
    static let backslash = UInt8(ascii: "\\")
    static let singleQuote = UInt8(ascii: "'")
    static let doubleQuote = UInt8(ascii: "\"")
    static let backtick = UInt8(ascii: "`")
    static let dollar = UInt8(ascii: "$")
    static let hash = UInt8(ascii: "#")
    static let equals = UInt8(ascii: "=")
    static let percent = UInt8(ascii: "%")

    var isBlank: Bool { self == .space || self == .tab }
    var isControl: Bool { self < 0x20 || self == 0x7f }
    var isDigit: Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self) }
    var isLetter: Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(self) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(self)
    }
    /// A letter, a digit or `_`, in ASCII.
    var isWord: Bool { isLetter || isDigit || self == UInt8(ascii: "_") }
    var lowercased: UInt8 { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(self) ? self | 0x20 : self }

    /// Two digits, lower case.
    var hex: [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        return [digits[Int(self >> 4)], digits[Int(self & 15)]]
    }
}

extension UInt8 {
    /// The byte, or nil where the backslash before it takes its meaning away. `isEscaped` says so of this byte, and then of
    /// the next.
    func unescaped(_ isEscaped: inout Bool) -> UInt8? {
        defer { isEscaped = !isEscaped && self == .backslash }
        return isEscaped ? nil : self
    }
}

extension Collection<UInt8> {
    /// Only letters, digits, `_` and the given marks. True for no bytes.
    func consists(ofWordsAnd marks: StaticString) -> Bool {
        let allowed = "\(marks)".utf8
        return allSatisfy { $0.isWord || allowed.contains($0) }
    }

    func contains(_ text: StaticString) -> Bool { firstRange(of: Array("\(text)".utf8)) != nil }

    /// The first place of `pattern`, which is not empty.
    func firstRange(of pattern: [UInt8]) -> Range<Index>? {
        var start = startIndex
        while start != endIndex {
            var index = start
            var matched = 0
            while matched < pattern.count, index != endIndex, self[index] == pattern[matched] {
                index = self.index(after: index)
                matched += 1
            }
            if matched == pattern.count { return start..<index }
            start = self.index(after: start)
        }
        return nil
    }
}

extension BidirectionalCollection<UInt8> {
    func hasSuffix(_ text: StaticString) -> Bool { reversed().starts(with: "\(text)".utf8.reversed()) }

    var trimmed: SubSequence {
        var rest = self[...]
        while let first = rest.first, first.isBlank || first == .newline || first == .carriageReturn {
            rest = rest.dropFirst()
        }
        while let last = rest.last, last.isBlank || last == .newline || last == .carriageReturn {
            rest = rest.dropLast()
        }
        return rest
    }
}
