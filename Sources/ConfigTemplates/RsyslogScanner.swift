/// rsyslog's configuration: strings of RainerScript, where `\ooo` (octal) stands for any byte. The older `$Directive
/// value` and `selector action` lines know no quoting, and take plain words only.
struct RsyslogScanner: PlaceScanner {
    private enum Place: Equatable {
        case code
        case string(UInt8)
        case backtick
        case lineComment
        case blockComment
    }
    private var place = Place.code
    private var isEscaped = false
    private var parentheses = 0
    private var tail: [UInt8] = []
    private var word: [UInt8] = []
    /// The word before the last `(`.
    private var object: [UInt8] = []
    /// The word before the last `=`.
    private var parameter: [UInt8] = []

    mutating func read(_ byte: UInt8) -> String? {
        tail.append(byte)
        if tail.count > 4 { tail.removeFirst() }
        switch place {
        case .code: readCode(byte)
        case .string(let quote):
            if byte.unescaped(&isEscaped) == quote { place = .code }
        case .backtick:
            if byte == .backtick { place = .code }
        case .lineComment:
            if byte == .newline { place = .code }
        case .blockComment:
            if tail.hasSuffix("*/") { place = .code }
        }
        return nil
    }

    private mutating func readCode(_ byte: UInt8) {
        if byte.isWord || byte == UInt8(ascii: ".") {
            word.append(byte.lowercased)
        } else if byte == .equals {
            parameter = word
            word = []
        } else if byte == UInt8(ascii: "(") {
            object = word
            word = []
        } else if !byte.isBlank {
            word = []
        }
        switch byte {
        case .doubleQuote: place = .string(byte)
        // In the older lines an apostrophe quotes nothing.
        case .singleQuote where parentheses > 0: place = .string(byte)
        case .backtick where parentheses > 0: place = .backtick
        case .hash: place = .lineComment
        case UInt8(ascii: "("): parentheses += 1
        case UInt8(ascii: ")"): parentheses = max(0, parentheses - 1)
        case _ where tail.hasSuffix("/*"): place = .blockComment
        default: break
        }
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        if isEscaped { throw .place("an escape that the template began") }
        let bytes = try value.bytes("on", "off")
        switch place {
        case .lineComment, .blockComment: return try CommentText.quote(value, refusing: "*/")
        case .backtick: throw .place("backticks")
        case .string: break
        case .code where parentheses > 0:
            let isFree = tail.last.map { $0.isBlank || $0 == .newline || "=(,".utf8.contains($0) } ?? false
            let ends = following.first.map {
                $0.isBlank || $0 == .newline || $0 == .carriageReturn || "),".utf8.contains($0)
            }
            guard isFree, ends ?? false else {
                throw Refusal("is a whole parameter, and touches other text; put the whole parameter into quotes")
            }
        case .code:
            guard !bytes.isEmpty, bytes.consists(ofWordsAnd: "./:-") else {
                throw Refusal(
                    "stands outside a string, in a line without quoting, which takes letters, digits and _ . / : - only"
                )
            }
            return bytes
        }
        // The string of a template is a small language of its own.
        if parameter == Array("string".utf8), bytes.contains(where: { $0 == .percent || $0 == .backslash }) {
            throw Refusal(
                "has % or \\, and stands in the string of a template, where they have a meaning; use a list template")
        }
        // The text of a constant in a list template is unescaped a second time.
        let isTwice = object == Array("constant".utf8) && parameter == Array("value".utf8)
        let text = bytes.flatMap { byte -> [UInt8] in
            if isTwice && byte == .backslash { return Array("\\134\\134".utf8) }
            if byte.isWord || byte >= 0x80 || " ./:@,+-=%".utf8.contains(byte) { return [byte] }
            return [.backslash] + [byte >> 6, byte >> 3 & 7, byte & 7].map { UInt8(ascii: "0") + $0 }
        }
        return place == .code ? [.doubleQuote] + text + [.doubleQuote] : text
    }

    func ending() -> String? {
        switch place {
        case .string, .backtick: "a string is still open where the template ends"
        case .blockComment: "a comment is still open where the template ends"
        case .code, .lineComment: nil
        }
    }
}
