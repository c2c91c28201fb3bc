using System;
using System.Linq;
using System.Text;

// Reads lines FUNCTION TAB HEX; writes HEX.
class Encode {
    static void Main() {
        for (string line; (line = Console.ReadLine()) != null; ) {
            var parts = line.Split('\t');
            var bytes = Enumerable.Range(0, parts[1].Length / 2).Select(i => Convert.ToByte(parts[1].Substring(2 * i, 2), 16)).ToArray();
            var text = Encoding.UTF8.GetString(bytes);
            string encoded = parts[0] == "HttpUtility.UrlEncode" ? System.Web.HttpUtility.UrlEncode(text)
                : parts[0] == "WebUtility.UrlEncode" ? System.Net.WebUtility.UrlEncode(text) : Uri.EscapeDataString(text);
            Console.WriteLine(string.Concat(Encoding.UTF8.GetBytes(encoded).Select(b => b.ToString("x2"))));
        }
    }
}
