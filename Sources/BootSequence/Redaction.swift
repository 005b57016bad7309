internal import HostSystem

/// Takes known secrets out of text from outside: the last net below the rule that nobody puts one in. A secret is found as it
/// is, as HTML spells it, as it was written into a file (quoted for PHP, Apache, INI), and also where somebody cut it off after
/// some characters, as PHP does in stack traces and complaints.
struct Redaction {
    private var words: Set<[UInt8]> = []
    private var byStart: [UInt8: [[UInt8]]] = [:]
    static let mark = Array("(secret)".utf8)
    /// A shorter secret would be found in innocent words.
    private static let least = 4
    /// So much of the beginning of a longer secret gives it away.
    private static let start = 8

    mutating func add(_ secrets: [Secret]) {
        for secret in secrets {
            let bytes = secret.revealedBytes
            var forms = [bytes, Self.html(bytes, quote: "&#039;"), Self.html(bytes, quote: "&#39;")]
            // A file's spelling may be a whole literal; a complaint shows it without its quotes.
            if let first = bytes.first, first == bytes.last, [0x22, 0x27].contains(first), bytes.count > 2 {
                forms.append(Array(bytes.dropFirst().dropLast()))
            }
            for form in forms where form.count >= Self.least && words.insert(form).inserted {
                byStart[form[0], default: []].append(form)
            }
        }
    }

    func apply(_ text: String) -> String {
        if words.isEmpty { return text }
        let bytes = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            let matched = (byStart[bytes[index]] ?? []).map { Self.match($0, bytes[index...]) }.max() ?? 0
            if matched > 0 {
                result += Self.mark
                index += matched
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// How many bytes of `text` are the word or its beginning; 0 where that is too little to give it away.
    private static func match(_ word: [UInt8], _ text: ArraySlice<UInt8>) -> Int {
        let common = zip(word, text).prefix { $0 == $1 }.count
        return common >= min(word.count, start) ? common : 0
    }

    private static func html(_ bytes: [UInt8], quote: String) -> [UInt8] {
        let names: [UInt8: String] = [0x26: "&amp;", 0x3c: "&lt;", 0x3e: "&gt;", 0x22: "&quot;", 0x27: quote]
        return bytes.flatMap { byte in names[byte].map { Array($0.utf8) } ?? [byte] }
    }
}
