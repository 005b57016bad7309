/// Option files of MySQL and MariaDB (mysys/my_default.c): the escapes `\b \t \n \r \\ \s \" \'` everywhere in a value,
/// one pair of quotes around the whole of it taken off, `#` the start of a comment outside quotes.
struct MySQLScanner: PlaceScanner {
    private enum Place: Equatable {
        case key
        case comment
        /// In `[…]`.
        case group
        case value
        case quoted(UInt8)
        /// Behind the closing quote.
        case after
    }
    /// The reader's buffer (4096 bytes, the line's end and a NUL in it): the rest of a longer line would be a line of
    /// its own.
    private static let longestLine = 4094

    private var place = Place.key
    private var isEscaped = false
    private var hasText = false
    private var length = 0

    mutating func read(_ byte: UInt8) -> String? {
        if byte == .newline {
            let isLong = length > Self.longestLine
            let isOpen = if case .quoted = place { true } else { false }
            self = MySQLScanner()
            if isLong { return "the line is longer than the \(Self.longestLine) bytes that are read as one" }
            return isOpen ? "a quote is opened on this line and not closed on it" : nil
        }
        length += 1
        switch place {
        case .comment, .group: break
        case .key:
            if byte.isBlank || byte == .carriageReturn { break }
            if !hasText, byte == .hash || byte == UInt8(ascii: ";") {
                place = .comment
            } else if !hasText, byte == UInt8(ascii: "[") {
                place = .group
            } else if byte == .equals {
                place = .value
                hasText = false
                break
            }
            hasText = true
        case .value:
            if byte.isBlank && !hasText || byte == .carriageReturn { break }
            if isEscaped {
                isEscaped = false
            } else if byte == .hash {
                place = .comment
            } else if !hasText, byte == .doubleQuote || byte == .singleQuote {
                place = .quoted(byte)
            } else {
                isEscaped = byte == .backslash
            }
            hasText = true
        case .quoted(let quote):
            if byte.unescaped(&isEscaped) == quote { place = .after }
        case .after:
            if byte == .hash { place = .comment }
        }
        return nil
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        if isEscaped { throw .place("an escape that the template began") }
        let bytes = try value.bytes("1", "0")
        let text: [UInt8]
        switch place {
        case .comment: text = try CommentText.quote(value)
        case .key, .group:
            guard !bytes.isEmpty, bytes.consists(ofWordsAnd: "-.") else {
                throw Refusal(
                    "stands in the name of an option or a group, which takes letters, digits, _, . and - only")
            }
            text = bytes
        case .quoted(let quote): text = Self.escaped(bytes, in: quote)
        case .after: throw .place("the text behind a quoted value")
        case .value:
            if !hasText, following.endsLine(orAt: { $0 == .hash }) {
                text =
                    !bytes.isEmpty && bytes.consists(ofWordsAnd: "./:-")
                    ? bytes : [.doubleQuote] + Self.escaped(bytes, in: .doubleQuote) + [.doubleQuote]
            } else {
                guard !bytes.contains(where: { "#\"'".utf8.contains($0) }) else {
                    throw Refusal("has a quote or #, and is only a part of a value; put the whole value into quotes")
                }
                text = Self.escaped(bytes, in: nil)
            }
        }
        if length + text.count > Self.longestLine {
            throw Refusal("makes its line longer than the \(Self.longestLine) bytes that are read as one")
        }
        length += text.count
        hasText = true
        return text
    }

    private static func escaped(_ bytes: [UInt8], in quote: UInt8?) -> [UInt8] {
        bytes.flatMap { byte -> [UInt8] in
            switch byte {
            case .backslash: Array("\\\\".utf8)
            case .newline: Array("\\n".utf8)
            case .carriageReturn: Array("\\r".utf8)
            case .tab: Array("\\t".utf8)
            case 8: Array("\\b".utf8)
            case .space where quote == nil: Array("\\s".utf8)
            case quote: [.backslash, byte]
            default: [byte]
            }
        }
    }

    func ending() -> String? {
        if case .quoted = place { "a quote is still open where the template ends" } else { nil }
    }
}
